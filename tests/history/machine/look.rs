use super::{End, Machine, Process, Sent};
use crate::{
    history::{Ask, Heard, Look, Noted},
    link::Reply,
};
use cni_shim::journal::{Entry, JournalError, Readiness, Standing};
use ipam_api::{
    client::Page,
    names::Attachment,
    wire::{Allocation, Listing},
};
use std::{collections::BTreeSet, net::IpAddr, sync::PoisonError};

impl Process<'_> {
    /// While nothing else runs on the node: looks at ledger and journal as they are, has the service hear the node,
    /// sends a number of its old requests again, and looks again after each.
    pub(super) fn examine(&mut self, replays: u64) -> Result<(), End> {
        if !self.look(Heard::InPart)? {
            return Ok(());
        }
        self.sync()?;
        if !self.look(Heard::Whole)? {
            return Ok(());
        }
        for _ in 0..replays {
            let Some(sent) = self.any_sent() else { break };
            self.resend(&sent);
        }
        self.look(Heard::Whole).map(drop)
    }

    /// Notes journal and ledger side by side; whether there was something to note.
    pub(super) fn look(&self, heard: Heard) -> Result<bool, End> {
        let name = &self.machine.name;
        let Readiness::Ready(claim) = self.readiness()? else { return Ok(false) };
        if !matches!(claim.standing, Standing::Active | Standing::Deleting { .. }) {
            return Ok(false);
        }
        let journal = self.act(|vm| {
            let entries = vm.journal.picture()?.whole()?;
            Ok(entries.into_iter().map(|entry| Noted {
                address: entry.address,
                holder: entry.attachment(),
                live: entry.is_live(),
                acked: entry.acked,
            }))
        })?;
        let ask = Ask::Look(format!("nodes/{name}/allocations"));
        let tell = |listing: &Listing<Allocation>| format!("{} allocations", listing.items.len());
        let page = Page::largest();
        let reply = self.link.call(ask, tell, async |client| client.node_allocations(name, &page).await);
        let ledger = match reply {
            Reply::Done(answer) => held(answer.value),
            // A node that is in use has not gone.
            reply if reply.is_not_found() => Vec::new(),
            Reply::Refused(_) | Reply::Else(_) => return Ok(false),
        };
        let look = Look {
            at: self.machine.recorder.tick(),
            node: name.clone(),
            claim: claim.node.claim,
            boot: claim.boot.seq,
            heard,
            journal: journal.collect(),
            ledger,
        };
        // What was read of a VM that has ended meanwhile says nothing.
        self.act(|_| Ok(()))?;
        self.machine.recorder.with(|history| history.looks.push(look));
        Ok(true)
    }

    fn any_sent(&mut self) -> Option<Sent> {
        let sent = self.machine.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let at = self.chance.below(u64::try_from(sent.len()).ok().filter(|&count| count > 0)?);
        sent.get(usize::try_from(at).ok()?).cloned()
    }
}

impl Machine {
    /// Pods that live on it now, or hold an address that an ADD did not come to wire.
    pub(super) fn attachments(&self) -> Result<BTreeSet<Attachment>, JournalError> {
        self.read(|vm| {
            let live = vm.journal.entries()?.into_iter().filter(Entry::is_live);
            Ok(vm.wires(|wires| wires.keys().cloned().chain(live.map(|entry| entry.attachment())).collect()))
        })
    }
}

fn held(listing: Listing<Allocation>) -> Vec<(IpAddr, Attachment)> {
    listing.items.into_iter().filter_map(|one| Some((one.addresses.first()?.address, holder(&one)))).collect()
}

/// Whose an allocation is.
pub(crate) fn holder(allocation: &Allocation) -> Attachment {
    Attachment {
        network: allocation.network.clone(),
        container_id: allocation.container_id.clone(),
        if_name: allocation.if_name.clone(),
    }
}
