//! `/v1/tokens`: credentials of people, programs and nodes.

use super::{
    Service,
    answer::{self, Answer},
    caller::Caller,
    extract::{
        Body, ChangeQuery, ConditionHeaders, Conditions, NoQuery, PageQuery, Path, Query, RequestBody,
    },
    problem::{ANY, ApiError, BODY, NAMED, problems},
};
use crate::store::{Commit, Versioned};
use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
};
use ipam_api::{
    names::TokenId,
    token::Secret,
    wire::{Listing, NewToken, Role, Token, TokenSpec},
};
use serde::Deserialize;
use utoipa::IntoParams;

/// A token by its id.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct TokenPath {
    /// The token's id, which is not the token.
    #[param(inline)]
    token: TokenId,
}

impl RequestBody for TokenSpec {}

problems! {
    ListProblems: ANY;
    GetProblems: ANY, NAMED;
    PostProblems: ANY, BODY, [Exists];
    DeleteProblems: ANY, NAMED, [PreconditionFailed];
}

/// Lists tokens by id, never the tokens themselves.
#[utoipa::path(
    get, path = "/v1/tokens", operation_id = "listTokens", tag = "access", params(PageQuery),
    responses((status = 200, description = "A page of tokens", body = Listing<Token>), ListProblems)
)]
pub(crate) async fn list(State(service): State<Service>, Query(query): Query<PageQuery>) -> Answer {
    answer::list(service.store.tokens(&query.page()).await?)
}

/// Reads what is known of a token.
#[utoipa::path(
    get, path = "/v1/tokens/{token}", operation_id = "getToken", tag = "access", params(TokenPath),
    responses(
        (status = 200, description = "The token", body = Token, headers(("ETag" = String, description = "Its version"))),
        GetProblems
    )
)]
pub(crate) async fn get(
    State(service): State<Service>,
    Path(path): Path<TokenPath>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Answer {
    answer::live(&Versioned { value: service.store.token(&path.token).await?, version: 1 })
}

/// Makes a token. This answer is the only one that shows it.
#[utoipa::path(
    post, path = "/v1/tokens", operation_id = "createToken", tag = "access", params(ChangeQuery),
    request_body = TokenSpec,
    responses(
        (status = 201, description = "The token", body = NewToken, headers(
            ("Location" = String, description = "Where what is known of it is")
        )),
        PostProblems
    )
)]
pub(crate) async fn post(
    State(service): State<Service>,
    Query(query): Query<ChangeQuery>,
    caller: Caller,
    Body(spec): Body<TokenSpec>,
) -> Answer {
    let commit = query.commit();
    let secret = random(spec.role)?;
    let change = caller.change(&Conditions::default(), commit)?;
    let token = service.store.create_token(&spec, &secret, &change).await?;
    let location = format!("/v1/tokens/{}", token.id);
    // A token that is only tried is not kept: shown, it would be taken for one that counts.
    let secret = (commit == Commit::Keep).then(|| secret.expose().to_owned());
    let mut response = answer::json(StatusCode::CREATED, &NewToken { token, secret })?;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::try_from(location).map_err(|_| ApiError::internal())?);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Revokes a token: it counts no more, here at once and on other replicas within a second.
#[utoipa::path(
    delete, path = "/v1/tokens/{token}", operation_id = "deleteToken", tag = "access",
    params(TokenPath, ChangeQuery, ConditionHeaders),
    responses((status = 204, description = "It counts no more"), DeleteProblems)
)]
pub(crate) async fn delete(
    State(service): State<Service>,
    Path(path): Path<TokenPath>,
    Query(query): Query<ChangeQuery>,
    conditions: Conditions,
    caller: Caller,
) -> Answer {
    let change = caller.change(&conditions, query.commit())?;
    service.store.revoke_token(&path.token, &change).await?;
    answer::no_content()
}

/// A new token of this role.
fn random(role: Role) -> Result<Secret, ApiError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| {
        tracing::error!(%error, "the kernel gives no randomness");
        ApiError::internal()
    })?;
    Ok(Secret::new(role, bytes))
}
