use super::{Result, Store};
use ipam_api::wire::AddressInfo;
use std::net::IpAddr;

impl Store {
    /// Who has an address.
    pub async fn address(&self, address: IpAddr) -> Result<AddressInfo> {
        todo!()
    }
}
