use super::{Answer, Client, ClientError, Page, Write};
use crate::{
    names::TokenId,
    wire::{Listing, NewToken, Token, TokenSpec},
};
use reqwest::Method;

impl Client {
    /// A page of the tokens, by what is known of them.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn tokens(&self, page: &Page) -> Result<Answer<Listing<Token>>, ClientError> {
        self.request(Method::GET, &["v1", "tokens"]).query(page.query()).answer().await
    }

    /// What is known of a token.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn token(&self, id: &TokenId) -> Result<Answer<Token>, ClientError> {
        self.request(Method::GET, &["v1", "tokens", id.as_str()]).answer().await
    }

    /// Makes a token. Only this answer shows it: its body holds the secret, too.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create_token(
        &self,
        spec: &TokenSpec,
        write: &Write,
    ) -> Result<Answer<NewToken>, ClientError> {
        self.request(Method::POST, &["v1", "tokens"]).write(write).json(spec).answer().await
    }

    /// Revokes a token: it counts no more.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn revoke_token(&self, id: &TokenId, write: &Write) -> Result<Answer<()>, ClientError> {
        self.request(Method::DELETE, &["v1", "tokens", id.as_str()]).write(write).send().await
    }
}
