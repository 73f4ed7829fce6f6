use super::{Answer, Client, ClientError, Write};
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

    /// Revokes all tokens of a node at once; its claim and its pods stay.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_credential(&self, node: &NodeName, write: &Write) -> Result<Answer<()>, ClientError> {
        let request = self.request(Method::DELETE, &["v1", "nodes", node.as_str(), "credential"]);
        request.write(write).send().await
    }
}
