use super::{Change, Page, Result, Store, Versioned, Written};
use ipam_api::{
    names::PoolName,
    wire::{Listing, Pool, PoolSpec},
};

impl Store {
    /// Makes a pool and reserves all its blocks, or changes it and its plan; all at once or not at all.
    pub async fn put_pool(
        &self,
        name: &PoolName,
        spec: &PoolSpec,
        change: &Change,
    ) -> Result<Written<Versioned<Pool>>> {
        todo!()
    }
    /// A pool.
    pub async fn pool(&self, name: &PoolName) -> Result<Versioned<Pool>> {
        todo!()
    }
    /// Pools by name.
    pub async fn pools(&self, page: &Page) -> Result<Listing<Pool>> {
        todo!()
    }
    /// Deletes a pool without nodes and gives its blocks back.
    pub async fn delete_pool(&self, name: &PoolName, change: &Change) -> Result<()> {
        todo!()
    }
}
