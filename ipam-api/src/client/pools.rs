use super::{Answer, Client, ClientError, Page, Write};
use crate::{
    names::PoolName,
    wire::{Listing, Pool, PoolPatch, PoolSpec},
};
use reqwest::Method;

impl Client {
    /// A page of the pools.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn pools(&self, page: &Page) -> Result<Answer<Listing<Pool>>, ClientError> {
        self.request(Method::GET, &["v1", "pools"]).query(page.query()).answer().await
    }

    /// One pool.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn pool(&self, name: &PoolName) -> Result<Answer<Pool>, ClientError> {
        self.request(Method::GET, &["v1", "pools", name.as_str()]).answer().await
    }

    /// Creates or replaces a pool: reserves all its blocks or none.
    ///
    /// # Errors
    /// See [`ClientError`]; `exhausted` and `no-contiguous-block` where it does not fit.
    pub async fn put_pool(
        &self,
        name: &PoolName,
        spec: &PoolSpec,
        write: &Write,
    ) -> Result<Answer<Pool>, ClientError> {
        self.request(Method::PUT, &["v1", "pools", name.as_str()]).write(write).json(spec).answer().await
    }

    /// Edits a pool: reserves more blocks, or gives unclaimed ones back.
    ///
    /// # Errors
    /// See [`ClientError`]; `exhausted` and `no-contiguous-block` where it does not fit.
    pub async fn patch_pool(
        &self,
        name: &PoolName,
        patch: &PoolPatch,
        write: &Write,
    ) -> Result<Answer<Pool>, ClientError> {
        let request = self.request(Method::PATCH, &["v1", "pools", name.as_str()]);
        request.write(write).merge_patch(patch).answer().await
    }

    /// Deletes a pool without nodes.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_pool(&self, name: &PoolName, write: &Write) -> Result<Answer<()>, ClientError> {
        self.request(Method::DELETE, &["v1", "pools", name.as_str()]).write(write).send().await
    }
}
