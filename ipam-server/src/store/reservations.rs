use super::{Change, Page, Result, Store, Versioned, Written};
use ipam_api::{
    names::{ReservationName, SubnetPath},
    wire::{Listing, Reservation, ReservationSpec},
};

impl Store {
    /// Makes a reservation, or changes it to what is asked for.
    pub async fn put_reservation(
        &self,
        subnet: &SubnetPath,
        name: &ReservationName,
        spec: &ReservationSpec,
        change: &Change,
    ) -> Result<Written<Versioned<Reservation>>> {
        todo!()
    }
    /// A reservation.
    pub async fn reservation(
        &self,
        subnet: &SubnetPath,
        name: &ReservationName,
    ) -> Result<Versioned<Reservation>> {
        todo!()
    }
    /// Reservations of a subnet by name.
    pub async fn reservations(&self, subnet: &SubnetPath, page: &Page) -> Result<Listing<Reservation>> {
        todo!()
    }
    /// Deletes a reservation that covers no registered node's address.
    pub async fn delete_reservation(
        &self,
        subnet: &SubnetPath,
        name: &ReservationName,
        change: &Change,
    ) -> Result<()> {
        todo!()
    }
}
