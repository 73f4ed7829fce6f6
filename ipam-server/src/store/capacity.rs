use super::{Result, Store};
use ipam_api::wire::Capacity;

impl Store {
    /// Use of every subnet and pool.
    pub async fn capacity(&self) -> Result<Capacity> {
        todo!()
    }
}
