//! `PUT /v1/nodes/{node}/credential`: a node's own token, first and later.

use super::{
    Service,
    access::forbidden,
    answer::{self, Answer},
    caller::Caller,
    extract::{Body, ChangeQuery, ConditionHeaders, Conditions, NoQuery, Path, Query, RequestBody},
    nodes::NodePath,
    problem::{ANY, BODY, problems},
};
use crate::store::{Commit, Grant, Swapper, Written};
use axum::{extract::State, http::StatusCode};
use ipam_api::{
    token::{InvalidSecret, Secret},
    wire::{CredentialSpec, FieldError, Role, Token},
};

impl RequestBody for CredentialSpec {
    fn check(&self) -> Vec<FieldError> {
        let why = match self.token.parse::<Secret>() {
            Ok(secret) if secret.role() == Role::Node => return Vec::new(),
            Ok(_) => "it is no node's token: make one that begins with ipam_node_".to_owned(),
            Err(why) => why.to_string(),
        };
        vec![FieldError { pointer: "/token".to_owned(), detail: why }]
    }
}

problems! {
    PutProblems: ANY, BODY, [Exists, StaleClaim];
    DeleteProblems: ANY, [PreconditionFailed];
}

/// Keeps a token that a node has made for itself.
///
/// A new node comes with a join token of its pool, a known one with its own. The same token again changes nothing,
/// so a lost answer is asked for again. The node's former tokens end within the hour.
#[utoipa::path(
    put, path = "/v1/nodes/{node}/credential", operation_id = "putCredential", tag = "access",
    params(NodePath), request_body = CredentialSpec,
    responses(
        (status = 200, description = "It is kept already", body = Token),
        (status = 201, description = "It is kept now", body = Token),
        PutProblems
    )
)]
pub(crate) async fn put(
    State(service): State<Service>,
    Path(path): Path<NodePath>,
    Query(NoQuery {}): Query<NoQuery>,
    caller: Caller,
    Body(spec): Body<CredentialSpec>,
) -> Answer {
    let secret = spec
        .token
        .parse()
        .map_err(|why: InvalidSecret| super::problem::ApiError::invalid_field("/token", why.to_string()))?;
    let by = match caller.token().map(|known| (&known.id, &known.grant)) {
        Some((id, Grant::Join(pool))) => Swapper::Joining(id.clone(), pool.clone()),
        Some((id, Grant::Node(_, pool))) => Swapper::Itself(id.clone(), pool.clone()),
        None if caller.role() == Role::Node => {
            return Err(forbidden(
                &caller,
                "a client certificate makes no token, which would outlive it: renew the certificate instead",
            ));
        }
        _ => Swapper::Admin,
    };
    let change = caller.change(&Conditions::default(), Commit::Keep)?;
    match service.store.swap_token(&path.node, &secret, &by, &change).await? {
        Written::Created(token) => answer::json(StatusCode::CREATED, &token),
        Written::Updated(token) => answer::json(StatusCode::OK, &token),
    }
}

/// Revokes all tokens of a node at once; its claim and its pods stay, and to its shim the service is as if away.
#[utoipa::path(
    delete, path = "/v1/nodes/{node}/credential", operation_id = "deleteCredential", tag = "access",
    params(NodePath, ChangeQuery, ConditionHeaders),
    responses((status = 204, description = "It has none that counts"), DeleteProblems)
)]
pub(crate) async fn delete(
    State(service): State<Service>,
    Path(path): Path<NodePath>,
    Query(query): Query<ChangeQuery>,
    conditions: Conditions,
    caller: Caller,
) -> Answer {
    let change = caller.change(&conditions, query.commit())?;
    service.store.revoke_node(&path.node, &change).await?;
    answer::no_content()
}
