use super::{Answer, Client, ClientError};
use crate::wire::{AddressInfo, Capacity, Plan, PlanRequest};
use reqwest::Method;
use std::net::IpAddr;

impl Client {
    /// What a set of pools would take, without taking it.
    ///
    /// # Errors
    /// See [`ClientError`]. A plan that does not fit is an answer, not an error.
    pub async fn plan(&self, plan: &PlanRequest) -> Result<Answer<Plan>, ClientError> {
        self.request(Method::POST, &["v1", "plan"]).json(plan).answer().await
    }

    /// Use of every subnet and pool.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn capacity(&self) -> Result<Answer<Capacity>, ClientError> {
        self.request(Method::GET, &["v1", "capacity"]).answer().await
    }

    /// Who has an address.
    ///
    /// # Errors
    /// See [`ClientError`]; `not-found` where no subnet has it.
    pub async fn address(&self, address: IpAddr) -> Result<Answer<AddressInfo>, ClientError> {
        self.request(Method::GET, &["v1", "addresses", &address.to_string()]).answer().await
    }

    /// Whether the service runs.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn live(&self) -> Result<Answer<()>, ClientError> {
        self.request(Method::GET, &["livez"]).send().await
    }

    /// Whether the service can answer.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn ready(&self) -> Result<Answer<()>, ClientError> {
        self.request(Method::GET, &["readyz"]).send().await
    }

    /// The service's `OpenAPI` document, as it came.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn openapi(&self) -> Result<Answer<()>, ClientError> {
        self.request(Method::GET, &["openapi.json"]).send().await
    }
}
