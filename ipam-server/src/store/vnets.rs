use super::{Change, Page, Result, Store, Versioned, Written};
use ipam_api::{
    names::VnetName,
    wire::{Listing, Vnet, VnetSpec},
};

impl Store {
    /// Makes a VNet, or changes it to what is asked for.
    pub async fn put_vnet(
        &self,
        name: &VnetName,
        spec: &VnetSpec,
        change: &Change,
    ) -> Result<Written<Versioned<Vnet>>> {
        todo!()
    }
    /// A VNet.
    pub async fn vnet(&self, name: &VnetName) -> Result<Versioned<Vnet>> {
        todo!()
    }
    /// VNets by name.
    pub async fn vnets(&self, page: &Page) -> Result<Listing<Vnet>> {
        todo!()
    }
    /// Deletes a VNet without subnets.
    pub async fn delete_vnet(&self, name: &VnetName, change: &Change) -> Result<()> {
        todo!()
    }
}
