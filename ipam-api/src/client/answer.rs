use super::{ClientError, ETag, Page};
use crate::wire::Listing;

/// A success of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// What it says.
    pub value: T,
    /// Version of the resource, where it has one.
    pub etag: Option<ETag>,
    /// The HTTP status, 200 to 299.
    pub status: u16,
    /// The body as it came; it may have fields this client does not know.
    pub body: Vec<u8>,
}

impl<T> Answer<T> {
    /// Whether the request made the resource.
    #[must_use]
    pub fn created(&self) -> bool {
        self.status == 201
    }
}

/// Every page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllPages<T> {
    /// The pages, in order; at least one.
    pub pages: Vec<Answer<Listing<T>>>,
}

impl<T> AllPages<T> {
    /// The items of all pages, in order.
    pub fn items(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flat_map(|page| &page.value.items)
    }

    /// The items of all pages, in order.
    #[must_use]
    pub fn into_items(self) -> Vec<T> {
        self.pages.into_iter().flat_map(|page| page.value.items).collect()
    }
}

/// Fetches a list page by page until its end.
///
/// ```no_run
/// # async fn example(client: &ipam_api::client::Client) -> Result<(), ipam_api::client::ClientError> {
/// use ipam_api::client::all_pages;
///
/// let pools = all_pages(async |page| client.pools(&page).await).await?.into_items();
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The first error of `fetch`, or [`ClientError::Unexpected`] if the list goes in a circle.
pub async fn all_pages<T>(
    fetch: impl AsyncFn(Page) -> Result<Answer<Listing<T>>, ClientError>,
) -> Result<AllPages<T>, ClientError> {
    let mut pages: Vec<Answer<Listing<T>>> = Vec::new();
    let mut page = Page::largest();
    loop {
        let answer = fetch(page.clone()).await?;
        let next = answer.value.next.clone();
        let status = answer.status;
        pages.push(answer);
        match next {
            None => return Ok(AllPages { pages }),
            Some(next) if page.after.as_ref() == Some(&next) => {
                return Err(ClientError::Unexpected {
                    server: "the service".to_owned(),
                    status,
                    reason: "a list's next page is the same page".to_owned(),
                    excerpt: next,
                });
            }
            Some(next) => page.after = Some(next),
        }
    }
}
