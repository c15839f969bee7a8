use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// What a client must know. Only its digest is kept.
#[derive(Clone, Copy)]
pub(crate) struct Secret([u8; 32]);

impl Secret {
    pub(crate) fn new(secret: &str) -> Secret {
        Secret(Sha256::digest(secret).into())
    }

    /// Whether `given` is the secret. Digests are of one length and are compared whole: the time tells nothing.
    pub(crate) fn is(&self, given: &str) -> Choice {
        self.0.ct_eq(&Secret::new(given).0)
    }
}

/// The token of `authorization: Bearer TOKEN`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
