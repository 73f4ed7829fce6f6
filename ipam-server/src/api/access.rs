//! Who may call which operation: said once, in the list of routes, for the document and for the door.

use super::{
    Service,
    caller::{self, Caller},
    problem,
};
use axum::{
    extract::{FromRequestParts, RawPathParams, Request},
    http::request::Parts,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use ipam_api::{
    names::NodeName,
    wire::{ProblemType, Role},
};
use problem::ApiError;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, path::Operation, security::SecurityRequirement};
use utoipa_axum::router::UtoipaMethodRouter;

/// The roles that may call an operation; none: everybody, without a credential.
pub(super) type Roles = &'static [Role];

/// Everybody, without a credential.
pub(super) const PUBLIC: Roles = &[];
/// Those who look.
pub(super) const READERS: Roles = &[Role::Admin, Role::Planner, Role::Viewer];
/// Those who ask what would fit.
pub(super) const PLANNERS: Roles = &[Role::Admin, Role::Planner];
/// Those who change the plan.
pub(super) const ADMINS: Roles = &[Role::Admin];
/// Those who look, and the node that it is about.
pub(super) const READERS_AND_NODE: Roles = &[Role::Admin, Role::Planner, Role::Viewer, Role::Node];
/// The node that it is about.
pub(super) const NODE: Roles = &[Role::Admin, Role::Node];
/// The node that it is about, new ones included.
pub(super) const NEW_NODE: Roles = &[Role::Admin, Role::Node, Role::Join];

/// Name of the bearer scheme in the document.
const BEARER: &str = "bearer";
/// Name of the certificate scheme in the document.
const CERTIFICATE: &str = "clientCertificate";

/// Puts a guard before operations.
pub(super) trait Guarded {
    /// Only these roles may call them; the document says so.
    fn only(self, roles: Roles) -> Self;
}

impl Guarded for UtoipaMethodRouter<Service> {
    fn only(self, roles: Roles) -> Self {
        let (schemas, mut paths, mut router) = self;
        for item in paths.paths.values_mut() {
            let all = [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
            for operation in all.into_iter().flatten() {
                document(operation, roles);
            }
        }
        if !roles.is_empty() {
            router = router.route_layer(from_fn(move |request, next| guard(roles, request, next)));
        }
        (schemas, paths, router)
    }
}

fn document(operation: &mut Operation, roles: Roles) {
    let words: Vec<&str> = roles.iter().map(|role| role.word()).collect();
    let mut security = Vec::new();
    if !roles.is_empty() {
        security.push(SecurityRequirement::new(BEARER, words));
        let refusals = [ProblemType::Unauthenticated, ProblemType::Forbidden];
        for (status, response) in problem::documented(&[&refusals]) {
            operation.responses.responses.entry(status).or_insert(response);
        }
    }
    // A certificate makes no token: an operation for those who have none yet is not for it.
    if roles.contains(&Role::Node) && !roles.contains(&Role::Join) {
        security.push(SecurityRequirement::new(CERTIFICATE, [Role::Node.word()]));
    }
    operation.security = Some(security);
}

/// The schemes that operations name.
pub(super) fn schemes(components: &mut Components) {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("ipam_ROLE_…")
        .description(Some("A token; operations list the roles that may call them."))
        .build();
    let certificate = SecurityScheme::MutualTls {
        description: Some("A client certificate whose only DNS name is the node's.".to_owned()),
        extensions: None,
        deprecated: None,
    };
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer));
    components.add_security_scheme(CERTIFICATE, certificate);
}

async fn guard(roles: Roles, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match admit(roles, &mut parts).await {
        Ok(caller) => {
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(error) => error.into_response(),
    }
}

async fn admit(roles: Roles, parts: &mut Parts) -> Result<Caller, ApiError> {
    let Some(service) = parts.extensions.get::<Service>().cloned() else {
        tracing::error!("a guard has no service to ask");
        return Err(ApiError::internal());
    };
    let caller = Caller::identify(&service, parts).await?;
    if let Some(former) = caller.former() {
        // An unknown token would look like an outage, in which a node goes on from its block; and that may be
        // another's by now.
        return Err(if own_path(parts, former).await {
            ApiError::new(
                ProblemType::StaleClaim,
                format!(
                    "the claim of node {former} that this token belongs to has ended: no new pods; a VM that is there \
                     again joins anew or gets a token from an admin"
                ),
            )
        } else {
            caller::unknown()
        });
    }
    if !roles.contains(&caller.role()) {
        let words: Vec<&str> = roles.iter().map(|role| role.word()).collect();
        return Err(forbidden(
            &caller,
            &format!(
                "{} has role {} and this needs {}: ask an admin for a token of that role (ipamctl token create)",
                caller.name(),
                caller.role().word(),
                words.join(" or ")
            ),
        ));
    }
    match caller.node() {
        Some((own, _)) if !own_path(parts, own).await => Err(forbidden(
            &caller,
            &format!(
                "this credential is node {own}'s: it may touch /v1/nodes/{own} and what is below, and nothing else"
            ),
        )),
        _ => Ok(caller),
    }
}

/// Whether the path is below this node's.
async fn own_path(parts: &mut Parts, own: &NodeName) -> bool {
    let named = RawPathParams::from_request_parts(parts, &()).await.ok();
    let node = named.as_ref().and_then(|names| names.iter().find(|(name, _)| *name == "node"));
    node.is_some_and(|(_, node)| node == own.as_str())
}

/// Who is somebody, but may not do this.
pub(super) fn forbidden(caller: &Caller, detail: &str) -> ApiError {
    tracing::warn!(caller = caller.name(), reason = detail, "not allowed");
    ApiError::new(ProblemType::Forbidden, detail)
}
