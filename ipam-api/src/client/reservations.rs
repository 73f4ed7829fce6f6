use super::{Answer, Client, ClientError, Page, Write, subnets};
use crate::{
    names::{ReservationName, SubnetPath},
    wire::{Listing, Reservation, ReservationSpec},
};
use reqwest::Method;

fn segments<'a>(subnet: &'a SubnetPath, name: &'a ReservationName) -> [&'a str; 7] {
    let [v1, vnets, vnet, subnets, subnet] = subnets::segments(subnet);
    [v1, vnets, vnet, subnets, subnet, "reservations", name.as_str()]
}

impl Client {
    /// A page of a subnet's reservations.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn reservations(
        &self,
        subnet: &SubnetPath,
        page: &Page,
    ) -> Result<Answer<Listing<Reservation>>, ClientError> {
        let [v1, vnets, vnet, subnets, subnet] = subnets::segments(subnet);
        let request = self.request(Method::GET, &[v1, vnets, vnet, subnets, subnet, "reservations"]);
        request.query(page.query()).answer().await
    }

    /// One reservation.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn reservation(
        &self,
        subnet: &SubnetPath,
        name: &ReservationName,
    ) -> Result<Answer<Reservation>, ClientError> {
        self.request(Method::GET, &segments(subnet, name)).answer().await
    }

    /// Creates or replaces a reservation.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put_reservation(
        &self,
        subnet: &SubnetPath,
        name: &ReservationName,
        spec: &ReservationSpec,
        write: &Write,
    ) -> Result<Answer<Reservation>, ClientError> {
        self.request(Method::PUT, &segments(subnet, name)).write(write).json(spec).answer().await
    }

    /// Deletes a reservation; refused while it covers a registered node's address.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_reservation(
        &self,
        subnet: &SubnetPath,
        name: &ReservationName,
        write: &Write,
    ) -> Result<Answer<()>, ClientError> {
        self.request(Method::DELETE, &segments(subnet, name)).write(write).send().await
    }
}
