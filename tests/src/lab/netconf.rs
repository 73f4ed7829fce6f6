use serde_json::{Value, json};

/// Configuration of a node's shim, as an administrator writes it and libcni hands it on.
#[derive(Debug, Clone)]
pub struct Netconf {
    fields: Value,
}

impl Netconf {
    /// Transparent mode on network `vnet`, for the service at `server`.
    #[must_use]
    pub fn new(node: &str, server: &str, boot_id_file: &str) -> Self {
        Self {
            fields: json!({
                "cniVersion": "1.0.0",
                "name": "vnet",
                "type": "cni-shim",
                "mode": "transparent",
                "server": server,
                "node": node,
                "whenUnreachable": "use-block",
                "bootIdFile": boot_id_file,
            }),
        }
    }

    /// The same with one field set to something else.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.fields[field] = value.into();
        self
    }

    /// What the plugin reads: the configuration, and the result of the ADD for what follows one.
    #[must_use]
    pub fn json(&self, previous: Option<&Value>) -> Value {
        let mut fields = self.fields.clone();
        if let Some(previous) = previous {
            fields["prevResult"] = previous.clone();
        }
        fields
    }
}
