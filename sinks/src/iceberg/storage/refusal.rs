//! What an object store's refusal means, and what mends it.
//!
//! S3 says it best in its document's code. The client's kind follows the HTTP status, and puts keys that have ended,
//! clocks that differ and a bucket of another region among what may pass by itself, or among wrong keys.

use opendal::ErrorKind as Kind;
use undertone_error::{Error, ErrorKind};

use super::S3Config;
use crate::iceberg::http::{causes, is_untrusted};

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// Anything that makes no object.
    Other,
    /// Making an object, of which nothing is missing that somebody could have removed.
    Writing,
}

/// What a refusal means for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// The keys are wrong, or not good for this.
    Keys,
    /// The token that came with them has ended, or is wrong.
    Token,
    /// There is no such bucket.
    Bucket,
    /// It is in another region, or behind another address.
    Elsewhere,
    /// This machine's clock or the store's is wrong.
    Clocks,
    /// The object is not there.
    Missing,
    /// The store has forgotten an upload, or something answers in its place.
    Upload,
    /// The store is ill, busy or away.
    Ill,
}

fn meaning(kind: Kind, code: Option<&str>, doing: Doing) -> Meaning {
    match (code, kind) {
        (Some("ExpiredToken" | "InvalidToken" | "InvalidTokenId" | "TokenRefreshRequired"), _) => Meaning::Token,
        (
            Some(
                "AuthorizationHeaderMalformed"
                | "PermanentRedirect"
                | "IllegalLocationConstraintException"
                | "InvalidBucketName",
            ),
            _,
        ) => Meaning::Elsewhere,
        (Some("RequestTimeTooSkewed"), _) => Meaning::Clocks,
        (_, Kind::PermissionDenied) => Meaning::Keys,
        (_, Kind::ConfigInvalid) => Meaning::Bucket,
        (_, Kind::NotFound) if doing == Doing::Writing => Meaning::Upload,
        (_, Kind::NotFound) => Meaning::Missing,
        _ => Meaning::Ill,
    }
}

impl Meaning {
    /// Only what the store may get over by itself is waited for, and clocks that somebody sets meanwhile.
    fn kind(self) -> ErrorKind {
        match self {
            Self::Keys | Self::Token | Self::Bucket | Self::Elsewhere => ErrorKind::InvalidConfig,
            Self::Missing => ErrorKind::NotFound,
            Self::Clocks | Self::Upload | Self::Ill => ErrorKind::Unavailable,
        }
    }
}

/// The error in our terms, with the object, the store and the mend.
pub(super) fn explain(config: &S3Config, error: &opendal::Error, location: &str, doing: Doing) -> Error {
    let (code, said) = said(error);
    let meaning = meaning(error.kind(), code.as_deref(), doing);
    let (message, help) = match meaning {
        Meaning::Keys => (
            "object store refuses the keys",
            format!("check the values of {}, and that they may read and write there", variables(config)),
        ),
        Meaning::Token => ("object store refuses the session token", token_help(config)),
        Meaning::Bucket => (
            "object store does not know the bucket, or its configuration is wrong",
            "make the bucket, or set storage.s3.endpoint, region and path_style as the store wants them".to_owned(),
        ),
        Meaning::Elsewhere => (
            "object store has the bucket elsewhere, or takes no bucket of that name",
            "set storage.s3.region and storage.s3.endpoint to the bucket's own".to_owned(),
        ),
        Meaning::Clocks => {
            ("object store's clock and this machine's differ", "set this machine's clock, or the store's".to_owned())
        }
        Meaning::Missing => ("object is not there", "was it removed by somebody else?".to_owned()),
        Meaning::Upload => (
            "object store does not know the upload",
            "it is sent anew; if that goes on, is storage.s3.endpoint the store's address?".to_owned(),
        ),
        Meaning::Ill if is_untrusted(&said) => (
            "object store's certificate is not trusted",
            "name the authority that signed it as storage.s3.ca".to_owned(),
        ),
        Meaning::Ill => {
            ("object store does not do its part", "is it running, and is storage.s3.endpoint its address?".to_owned())
        }
    };
    let error = Error::new(meaning.kind(), message).with("object", location);
    let error = match &config.endpoint {
        Some(endpoint) => error.with("endpoint", endpoint),
        None => error.with("region", &config.region),
    };
    error.source(said).help(help)
}

fn variables(config: &S3Config) -> String {
    format!("{} and {}", config.access_key.variable(), config.secret_key.variable())
}

fn token_help(config: &S3Config) -> String {
    let keys = variables(config);
    match &config.session_token {
        Some(token) => format!("put one that is valid into {}, with its keys in {keys}", token.variable()),
        None => format!(
            "put keys that are valid into {keys}; if they come with a token, name its variable as \
             storage.s3.session_token_env"
        ),
    }
}

/// What an answer says in its own words: of S3's document the code, and code and message; else no code, and everything.
fn said(error: &opendal::Error) -> (Option<String>, String) {
    let all = causes(error);
    let quoted = |name: &str| {
        let rest = all.split_once("S3Error")?.1.split_once(&format!("{name}: \""))?.1;
        rest.split_once('"').map(|(value, _)| value.to_owned())
    };
    match (quoted("code"), quoted("message")) {
        (Some(code), Some(message)) => {
            let words = format!("{code}: {message}");
            (Some(code), words)
        }
        _ => (None, all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iceberg::secret::Secret;

    fn config(session_token: Option<Secret>) -> S3Config {
        S3Config {
            endpoint: Some("http://127.0.0.1:9".to_owned()),
            region: "us-east-1".to_owned(),
            path_style: true,
            access_key: Secret::new("KEY_ID", "the-id"),
            secret_key: Secret::new("KEY", "the-key"),
            session_token,
            ca: None,
        }
    }

    #[test]
    fn the_code_is_heard_before_the_status() {
        let cases = [
            (Kind::Unexpected, Some("ExpiredToken"), Meaning::Token),
            (Kind::PermissionDenied, Some("ExpiredToken"), Meaning::Token),
            (Kind::Unexpected, Some("InvalidToken"), Meaning::Token),
            (Kind::PermissionDenied, Some("InvalidTokenId"), Meaning::Token),
            (Kind::Unexpected, Some("TokenRefreshRequired"), Meaning::Token),
            (Kind::Unexpected, Some("AuthorizationHeaderMalformed"), Meaning::Elsewhere),
            (Kind::Unexpected, Some("PermanentRedirect"), Meaning::Elsewhere),
            (Kind::Unexpected, Some("IllegalLocationConstraintException"), Meaning::Elsewhere),
            (Kind::Unexpected, Some("InvalidBucketName"), Meaning::Elsewhere),
            (Kind::PermissionDenied, Some("RequestTimeTooSkewed"), Meaning::Clocks),
            (Kind::PermissionDenied, Some("SignatureDoesNotMatch"), Meaning::Keys),
            (Kind::PermissionDenied, None, Meaning::Keys),
            (Kind::ConfigInvalid, Some("NoSuchBucket"), Meaning::Bucket),
            (Kind::NotFound, Some("NoSuchKey"), Meaning::Missing),
            (Kind::NotFound, None, Meaning::Missing),
            (Kind::RateLimited, Some("SlowDown"), Meaning::Ill),
            (Kind::Unexpected, Some("InternalError"), Meaning::Ill),
            (Kind::Unexpected, None, Meaning::Ill),
        ];
        for (kind, code, wanted) in cases {
            assert_eq!(meaning(kind, code, Doing::Other), wanted, "{kind:?} {code:?}");
        }
        for code in [Some("NoSuchUpload"), None] {
            assert_eq!(meaning(Kind::NotFound, code, Doing::Writing), Meaning::Upload, "{code:?}");
        }
        assert_eq!(meaning(Kind::PermissionDenied, None, Doing::Writing), Meaning::Keys);
    }

    #[test]
    fn refusals_name_what_mends_them_and_never_the_keys() {
        let token = || Some(Secret::new("SESSION", "the-token"));
        let cases = [
            (Kind::PermissionDenied, "InvalidAccessKeyId", None, ErrorKind::InvalidConfig, "KEY_ID and KEY"),
            (Kind::Unexpected, "ExpiredToken", token(), ErrorKind::InvalidConfig, "SESSION"),
            (Kind::Unexpected, "ExpiredToken", None, ErrorKind::InvalidConfig, "KEY_ID and KEY"),
            (Kind::ConfigInvalid, "NoSuchBucket", None, ErrorKind::InvalidConfig, "make the bucket"),
            (Kind::Unexpected, "PermanentRedirect", None, ErrorKind::InvalidConfig, "storage.s3.region"),
            (Kind::PermissionDenied, "RequestTimeTooSkewed", None, ErrorKind::Unavailable, "this machine's clock"),
            (Kind::RateLimited, "SlowDown", None, ErrorKind::Unavailable, "http://127.0.0.1:9"),
            (Kind::NotFound, "NoSuchKey", None, ErrorKind::NotFound, "s3://b/k"),
        ];
        for (kind, code, token, wanted, part) in cases {
            let document = format!("S3Error {{ code: \"{code}\", message: \"so it is\", resource: \"/b\" }}");
            let error = explain(&config(token), &opendal::Error::new(kind, document), "s3://b/k", Doing::Other);
            let text = error.to_string();
            assert_eq!(error.kind(), wanted, "{text}");
            assert!(text.contains(part) && text.contains(&format!("{code}: so it is")), "{text}");
            assert!(!text.contains("the-"), "{text}");
        }
    }
}
