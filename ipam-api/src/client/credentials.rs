use super::{Answer, Client, ClientError};
use crate::{
    names::NodeName,
    token::Secret,
    wire::{CredentialSpec, Token},
};
use reqwest::Method;

impl Client {
    /// Has the service keep a token that the node made for itself. The same one
    /// again changes nothing, so a lost answer is asked for again.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put_credential(
        &self,
        node: &NodeName,
        secret: &Secret,
    ) -> Result<Answer<Token>, ClientError> {
        let spec = CredentialSpec { token: secret.expose().to_owned() };
        let request = self.request(Method::PUT, &["v1", "nodes", node.as_str(), "credential"]);
        request.json(&spec).answer().await
    }
}
