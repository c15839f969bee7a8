use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};

use super::operations;
use crate::keys;

/// What a server asks its clients for.
#[derive(Clone, Copy)]
pub(crate) struct Guards {
    /// One of the API keys.
    pub(crate) keys: bool,
    /// The operators' token.
    pub(crate) token: bool,
}

impl Guards {
    /// Names the proofs that each endpoint takes.
    pub(super) fn describe(self, document: &mut OpenApi) {
        let mut schemes = Vec::new();
        if self.keys {
            schemes.push(("key", SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new(keys::HEADER.as_str())))));
            schemes.push(("bearer", bearer()));
        }
        if self.token {
            schemes.push(("operator", bearer()));
        }
        for (name, scheme) in schemes {
            document.components.get_or_insert_default().security_schemes.insert(name.to_owned(), scheme.into());
        }
        for (path, item) in &mut document.paths.paths {
            let proofs: &[&str] = match path.as_str() {
                "/healthz" | "/readyz" => &[],
                "/admin/reload" if self.token => &["operator"],
                _ if self.keys => &["key", "bearer"],
                _ => &[],
            };
            for operation in operations(item).filter(|_| !proofs.is_empty()) {
                let needs = |name: &&str| SecurityRequirement::new::<_, [&str; 0], _>(*name, []);
                operation.security = Some(proofs.iter().map(needs).collect());
            }
        }
    }
}

fn bearer() -> SecurityScheme {
    SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer))
}
