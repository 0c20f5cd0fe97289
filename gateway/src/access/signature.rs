//! Signatures of bodies (HMAC-SHA256), for webhooks of senders who cannot be given a key.
//!
//! A signature says who sent a body, not when: whoever overheard one may send that body again, which doubles an event and
//! no post. Use TLS.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::{errors::ProblemCode, problem::Problem};

/// The secret that sender and server share.
#[derive(Clone)]
pub struct SigningSecret(Vec<u8>);

impl SigningSecret {
    /// Its bytes as they are.
    pub fn new(secret: impl Into<Vec<u8>>) -> Self {
        Self(secret.into())
    }

    /// Whether `signature` is `sha256=` and the HMAC of the body in hex. Takes as long whatever is wrong with it.
    ///
    /// # Errors
    /// `unauthenticated`.
    pub(crate) fn check(&self, body: &[u8], signature: Option<&str>) -> Result<(), Problem> {
        let refused = |detail: &str| Err(Problem::new(ProblemCode::Unauthenticated, detail));
        let Some(signature) = signature else {
            return refused("there is no signature; send x-signature-256: sha256=HMAC of the body in hex");
        };
        let sent = hex(signature.strip_prefix("sha256=").unwrap_or(signature).trim());
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else {
            return refused("no signature can be checked");
        };
        mac.update(body);
        match sent.is_some_and(|sent| mac.verify_slice(&sent).is_ok()) {
            true => Ok(()),
            false => refused("the signature is not of this body and this server's secret"),
        }
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    (0..32).map(|index| u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()).collect()
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_signature_of_the_whole_body_passes() {
        // RFC 4231, test case 2.
        let secret = SigningSecret::new("Jefe");
        let body = b"what do ya want for nothing?";
        let good = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        for (body, signature, passes) in [
            (&body[..], Some(format!("sha256={good}")), true),
            (&body[..], Some(good.to_owned()), true),
            (&body[..], Some(good.to_uppercase()), true),
            (&body[1..], Some(good.to_owned()), false),
            (&body[..], Some(good.replace('5', "6")), false),
            (&body[..], Some(good[1..].to_owned()), false),
            (&body[..], Some("é".repeat(32)), false),
            (&body[..], Some(String::new()), false),
            (&body[..], None, false),
        ] {
            assert_eq!(secret.check(body, signature.as_deref()).is_ok(), passes, "{signature:?}");
        }
        assert!(!format!("{secret:?}").contains("Jefe"));
    }
}
