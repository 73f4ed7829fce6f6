use super::{Holder, Position};
use crate::store::{Result, StoreError};
use ipam_api::{
    ledger,
    line::Offset,
    names::{Attachment, NodeName},
    wire::{Allocation, AllocationState, BootSeq, Claim, HeldAddress, PodRef, Seq, Stamp},
};
use jiff::Timestamp;
use serde_json::{Value as Json, json};
use sqlx::FromRow;

/// The newest word on one address, as the table has it.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub(in crate::store) struct Row {
    pub(in crate::store) subnet: i64,
    pub(in crate::store) at_offset: i64,
    pub(in crate::store) state: String,
    pub(in crate::store) node_name: String,
    pub(in crate::store) network: String,
    pub(in crate::store) container_id: String,
    pub(in crate::store) if_name: String,
    pub(in crate::store) pod_namespace: Option<String>,
    pub(in crate::store) pod_name: Option<String>,
    pub(in crate::store) pod_uid: Option<String>,
    pub(in crate::store) since: i64,
    pub(in crate::store) claim: i64,
    pub(in crate::store) boot_seq: i64,
    pub(in crate::store) seq: i64,
    pub(in crate::store) node: Option<i64>,
    pub(in crate::store) block: Option<i64>,
    pub(in crate::store) extent_first: Option<i64>,
    pub(in crate::store) extent_next: Option<i64>,
}

/// Who begins to hold an address, and by which word.
#[derive(Debug, Clone)]
pub(in crate::store) struct Tenancy<'a> {
    pub(in crate::store) holder: &'a Holder,
    pub(in crate::store) attachment: &'a Attachment,
    pub(in crate::store) pod: Option<&'a PodRef>,
    pub(in crate::store) stamp: Stamp,
    pub(in crate::store) since: Timestamp,
}

impl Row {
    /// The row of an address that begins to be held; `None` if it is not in the holder's block.
    pub(in crate::store) fn held(offset: Offset, tenancy: &Tenancy<'_>) -> Option<Self> {
        let extent = tenancy.holder.footprint.extents().find(|extent| extent.contains(offset))?;
        Some(Self {
            node: Some(tenancy.holder.id),
            block: Some(tenancy.holder.block),
            extent_first: Some(extent.first().0.cast_signed()),
            extent_next: Some(extent.next().0.cast_signed()),
            state: "held".to_owned(),
            ..Self::released_by(offset, tenancy)
        })
    }

    /// The row of an address whose newest word is that it was given back.
    pub(in crate::store) fn released_by(offset: Offset, tenancy: &Tenancy<'_>) -> Self {
        let Tenancy { holder, attachment, pod, stamp, since } = tenancy;
        let text = |field: fn(&PodRef) -> &String| pod.map(field).filter(|text| !text.is_empty()).cloned();
        Self {
            subnet: holder.subnet,
            at_offset: offset.0.cast_signed(),
            state: "released".to_owned(),
            node_name: holder.name.to_string(),
            network: attachment.network.to_string(),
            container_id: attachment.container_id.to_string(),
            if_name: attachment.if_name.to_string(),
            pod_namespace: text(|pod| &pod.namespace),
            pod_name: text(|pod| &pod.name),
            pod_uid: text(|pod| &pod.uid),
            since: since.as_millisecond(),
            claim: stamp.claim.0.cast_signed(),
            boot_seq: stamp.boot.0.cast_signed(),
            seq: stamp.seq.0.cast_signed(),
            node: None,
            block: None,
            extent_first: None,
            extent_next: None,
        }
    }

    /// The same address given back by its holder.
    pub(in crate::store) fn released(&self, stamp: Stamp, since: Timestamp) -> Self {
        Self {
            state: "released".to_owned(),
            since: since.as_millisecond(),
            claim: stamp.claim.0.cast_signed(),
            boot_seq: stamp.boot.0.cast_signed(),
            seq: stamp.seq.0.cast_signed(),
            node: None,
            block: None,
            extent_first: None,
            extent_next: None,
            ..self.clone()
        }
    }

    pub(in crate::store) fn position(&self) -> Position {
        Position { subnet: self.subnet, offset: self.offset() }
    }

    pub(in crate::store) fn offset(&self) -> Offset {
        Offset(self.at_offset.cast_unsigned())
    }

    pub(in crate::store) fn is_held(&self) -> bool {
        self.node.is_some()
    }

    fn state(&self) -> AllocationState {
        if self.is_held() { AllocationState::Held } else { AllocationState::Released }
    }

    pub(in crate::store) fn is_of(&self, attachment: &Attachment) -> bool {
        self.network == attachment.network.as_str()
            && self.container_id == attachment.container_id.as_str()
            && self.if_name == attachment.if_name.as_str()
    }

    pub(super) fn is_of_same(&self, other: &Self) -> bool {
        self.network == other.network
            && self.container_id == other.container_id
            && self.if_name == other.if_name
    }

    pub(in crate::store) fn stamp(&self) -> Stamp {
        Stamp {
            claim: Claim(self.claim.cast_unsigned()),
            boot: BootSeq(self.boot_seq.cast_unsigned()),
            seq: Seq(self.seq.cast_unsigned()),
        }
    }

    pub(in crate::store) fn attachment(&self) -> Result<Attachment> {
        Ok(Attachment {
            network: parsed(&self.network)?,
            container_id: parsed(&self.container_id)?,
            if_name: parsed(&self.if_name)?,
        })
    }

    /// The row as the ledger's rules see it.
    pub(in crate::store) fn word(&self) -> Result<ledger::Row> {
        Ok(ledger::Row { attachment: self.attachment()?, stamp: self.stamp(), state: self.state() })
    }

    /// The pod, if the runtime named one.
    pub(in crate::store) fn pod(&self) -> Option<PodRef> {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let pod = PodRef {
            namespace: text(&self.pod_namespace),
            name: text(&self.pod_name),
            uid: text(&self.pod_uid),
        };
        (pod != PodRef::default()).then_some(pod)
    }

    /// The allocation as the API shows it.
    pub(in crate::store) fn allocation(&self, addresses: Vec<HeldAddress>) -> Result<Allocation> {
        let Attachment { network, container_id, if_name } = self.attachment()?;
        Ok(Allocation {
            node: parsed::<NodeName>(&self.node_name)?,
            network,
            container_id,
            if_name,
            addresses,
            state: self.state(),
            since: Timestamp::from_millisecond(self.since).unwrap_or(Timestamp::UNIX_EPOCH),
            pod: self.pod(),
        })
    }

    pub(super) fn to_json(&self) -> Json {
        json!([
            self.subnet,
            self.at_offset,
            self.state,
            self.node_name,
            self.network,
            self.container_id,
            self.if_name,
            self.pod_namespace,
            self.pod_name,
            self.pod_uid,
            self.since,
            self.claim,
            self.boot_seq,
            self.seq,
            self.node,
            self.block,
            self.extent_first,
            self.extent_next,
        ])
    }
}

/// A name read back from the table it was written to.
fn parsed<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(text: &str) -> Result<T> {
    text.parse().map_err(|error| StoreError::Database(sqlx::Error::Decode(Box::new(error))))
}
