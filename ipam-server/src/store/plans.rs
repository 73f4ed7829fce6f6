use super::{Result, Store, Versioned};
use ipam_api::wire::{Plan, PlanRequest};

impl Store {
    /// What a set of pools would take, without taking it; the version changes whenever the answer may.
    pub async fn plan(&self, request: &PlanRequest) -> Result<Versioned<Plan>> {
        todo!()
    }
}
