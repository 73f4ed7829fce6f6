use super::{Answer, Client, ClientError, Page, Write};
use crate::{
    names::VnetName,
    wire::{Listing, Vnet, VnetPatch, VnetSpec},
};
use reqwest::Method;

impl Client {
    /// A page of the VNets.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn vnets(&self, page: &Page) -> Result<Answer<Listing<Vnet>>, ClientError> {
        self.request(Method::GET, &["v1", "vnets"]).query(page.query()).answer().await
    }

    /// One VNet.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn vnet(&self, name: &VnetName) -> Result<Answer<Vnet>, ClientError> {
        self.request(Method::GET, &["v1", "vnets", name.as_str()]).answer().await
    }

    /// Creates or replaces a VNet.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put_vnet(
        &self,
        name: &VnetName,
        spec: &VnetSpec,
        write: &Write,
    ) -> Result<Answer<Vnet>, ClientError> {
        self.request(Method::PUT, &["v1", "vnets", name.as_str()]).write(write).json(spec).answer().await
    }

    /// Edits a VNet.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn patch_vnet(
        &self,
        name: &VnetName,
        patch: &VnetPatch,
        write: &Write,
    ) -> Result<Answer<Vnet>, ClientError> {
        let request = self.request(Method::PATCH, &["v1", "vnets", name.as_str()]);
        request.write(write).merge_patch(patch).answer().await
    }

    /// Deletes a VNet without subnets.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_vnet(&self, name: &VnetName, write: &Write) -> Result<Answer<()>, ClientError> {
        self.request(Method::DELETE, &["v1", "vnets", name.as_str()]).write(write).send().await
    }
}
