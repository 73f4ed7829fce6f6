use super::{Answer, Client, ClientError, Page, Write};
use crate::{
    names::{SubnetPath, VnetName},
    wire::{ExtentInfo, Listing, Subnet, SubnetPatch, SubnetSpec},
};
use reqwest::Method;

/// Path of a subnet.
pub(super) fn segments(path: &SubnetPath) -> [&str; 5] {
    ["v1", "vnets", path.vnet.as_str(), "subnets", path.subnet.as_str()]
}

impl Client {
    /// A page of a VNet's subnets.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn subnets(
        &self,
        vnet: &VnetName,
        page: &Page,
    ) -> Result<Answer<Listing<Subnet>>, ClientError> {
        let request = self.request(Method::GET, &["v1", "vnets", vnet.as_str(), "subnets"]);
        request.query(page.query()).answer().await
    }

    /// One subnet.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn subnet(&self, path: &SubnetPath) -> Result<Answer<Subnet>, ClientError> {
        self.request(Method::GET, &segments(path)).answer().await
    }

    /// Creates or replaces a subnet.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put_subnet(
        &self,
        path: &SubnetPath,
        spec: &SubnetSpec,
        write: &Write,
    ) -> Result<Answer<Subnet>, ClientError> {
        self.request(Method::PUT, &segments(path)).write(write).json(spec).answer().await
    }

    /// Edits a subnet.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn patch_subnet(
        &self,
        path: &SubnetPath,
        patch: &SubnetPatch,
        write: &Write,
    ) -> Result<Answer<Subnet>, ClientError> {
        self.request(Method::PATCH, &segments(path)).write(write).merge_patch(patch).answer().await
    }

    /// Deletes a subnet that nothing uses.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_subnet(&self, path: &SubnetPath, write: &Write) -> Result<Answer<()>, ClientError> {
        self.request(Method::DELETE, &segments(path)).write(write).send().await
    }

    /// A page of a subnet's extents, in order: all of them tile it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn extents(
        &self,
        path: &SubnetPath,
        page: &Page,
    ) -> Result<Answer<Listing<ExtentInfo>>, ClientError> {
        let [v1, vnets, vnet, subnets, subnet] = segments(path);
        let request = self.request(Method::GET, &[v1, vnets, vnet, subnets, subnet, "extents"]);
        request.query(page.query()).answer().await
    }
}
