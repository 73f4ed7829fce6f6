use super::{Change, Page, Result, Store, Versioned, Written};
use ipam_api::{
    names::{SubnetPath, VnetName},
    wire::{ExtentInfo, Listing, Subnet, SubnetSpec},
};

impl Store {
    /// Makes a subnet, or changes what may change of it.
    pub async fn put_subnet(
        &self,
        path: &SubnetPath,
        spec: &SubnetSpec,
        change: &Change,
    ) -> Result<Written<Versioned<Subnet>>> {
        todo!()
    }
    /// A subnet.
    pub async fn subnet(&self, path: &SubnetPath) -> Result<Versioned<Subnet>> {
        todo!()
    }
    /// Subnets of a VNet by name.
    pub async fn subnets(&self, vnet: &VnetName, page: &Page) -> Result<Listing<Subnet>> {
        todo!()
    }
    /// Deletes a subnet in which nothing but the platform's addresses is reserved.
    pub async fn delete_subnet(&self, path: &SubnetPath, change: &Change) -> Result<()> {
        todo!()
    }
    /// The tiles of a subnet in order.
    pub async fn extents(&self, path: &SubnetPath, page: &Page) -> Result<Listing<ExtentInfo>> {
        todo!()
    }
}
