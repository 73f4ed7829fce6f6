use super::{CniError, Code, NetConf, go_json::known_case};
use ipam_api::names::Attachment;
use serde_json::Value;
use std::collections::BTreeSet;

/// The attachments of a network that a runtime vouches for in a GC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ValidAttachments(BTreeSet<(String, String)>);

impl ValidAttachments {
    /// The keys of the list: the specification's, and the one of its drafts. Runtimes send both.
    pub(super) const KEYS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

    /// The attachments of either list; `None` if the runtime sent none, and so does not know. A list
    /// that is `null` is an empty one: Go writes a nil list so.
    ///
    /// # Errors
    /// Code 7 for a list that cannot be read: nothing may be taken away then.
    pub fn read(conf: &NetConf) -> Result<Option<Self>, CniError> {
        let mut valid = None;
        for (key, value) in &conf.attachment_lists {
            let all: &mut Self = valid.get_or_insert_default();
            let list = match value {
                Value::Null => continue,
                Value::Array(list) => list,
                _ => return Err(invalid(key, "it is not a list")),
            };
            for one in list {
                all.0.insert(names(one).ok_or_else(|| {
                    invalid(key, "an attachment is {\"containerID\": \"…\", \"ifname\": \"…\"}")
                })?);
            }
        }
        Ok(valid)
    }

    /// Whether the runtime vouches for an attachment of the network.
    #[must_use]
    pub fn contains(&self, attachment: &Attachment) -> bool {
        // As texts: what is no name to us is the name of none of our attachments.
        self.0.iter().any(|(container, interface)| {
            container == attachment.container_id.as_str() && interface == attachment.if_name.as_str()
        })
    }
}

fn invalid(key: &str, why: &str) -> CniError {
    CniError::new(Code::InvalidConfig, format!("{key} in the network configuration is not valid"))
        .details(format!("{why}; nothing was taken away"))
}

fn names(one: &Value) -> Option<(String, String)> {
    let object = known_case(one.as_object()?.clone(), &["containerID", "ifname"]);
    let text = |key: &str| Some(object.get(key)?.as_str()?.to_owned());
    Some((text("containerID")?, text("ifname")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(more: &Value) -> Result<Option<ValidAttachments>, CniError> {
        let mut conf = json!({"cniVersion": "1.1.0", "name": "pods", "server": "unix:///s", "node": "n1"});
        conf.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ValidAttachments::read(&NetConf::parse(conf.to_string().as_bytes())?)
    }

    fn attachment(container: &str, interface: &str) -> Attachment {
        Attachment {
            network: "pods".parse().unwrap(),
            container_id: container.parse().unwrap(),
            if_name: interface.parse().unwrap(),
        }
    }

    #[test]
    fn no_list_is_not_an_empty_list() {
        assert_eq!(read(&json!({})).unwrap(), None);
        for key in ValidAttachments::KEYS {
            assert_eq!(read(&json!({key: null})).unwrap(), Some(ValidAttachments::default()));
            assert_eq!(read(&json!({key: []})).unwrap(), Some(ValidAttachments::default()));
        }
    }

    #[test]
    fn either_list_vouches() {
        let one = json!([{"containerID": "a", "ifname": "eth0"}, {"ContainerID": "b", "IfName": "net1"}]);
        let valid = read(&json!({
            "CNI.dev/valid-attachments": one,
            "cni.dev/attachments": [{"containerID": "c", "ifname": "eth0"}, {"containerID": "/", "ifname": ""}]
        }));
        let valid = valid.unwrap().unwrap();
        for (container, interface, there) in [
            ("a", "eth0", true),
            ("b", "net1", true),
            ("c", "eth0", true),
            ("a", "net1", false),
            ("d", "eth0", false),
        ] {
            assert_eq!(valid.contains(&attachment(container, interface)), there, "{container} {interface}");
        }
    }

    #[test]
    fn what_cannot_be_read_vouches_for_everything() {
        for wrong in [json!("x"), json!({}), json!([1]), json!([{"containerID": "a"}]), json!([null])] {
            for key in ValidAttachments::KEYS {
                let error = read(&json!({key: wrong})).unwrap_err();
                assert!(error.code == Code::InvalidConfig && error.msg.contains(key), "{error}");
            }
        }
    }
}
