use super::{Answer, Client, ClientError, Write};
use crate::wire::Consistency;
use reqwest::Method;

impl Client {
    /// Whether what the service holds agrees with itself and with what its nodes last told.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn consistency(&self) -> Result<Answer<Consistency>, ClientError> {
        self.request(Method::GET, &["v1", "consistency"]).answer().await
    }

    /// Puts right what can be without risk that an address gets two holders.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn repair(&self, write: &Write) -> Result<Answer<Consistency>, ClientError> {
        self.request(Method::POST, &["v1", "consistency", "repair"]).write(write).answer().await
    }

    /// Ends the recovery that a restored backup began; the caller knows that nothing made after it has an address.
    ///
    /// # Errors
    /// See [`ClientError`]; `in-use` while nodes have not found back into the ledger.
    pub async fn end_recovery(&self, write: &Write) -> Result<Answer<()>, ClientError> {
        self.request(Method::DELETE, &["v1", "recovery"]).write(write).send().await
    }
}
