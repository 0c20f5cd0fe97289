//! What the client says of refusals, and what it does not do, against servers that say what is wanted.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::iceberg::failure::failure;
use crate::iceberg::storage::StorageConfig;
use crate::iceberg::tests::server::serve;

/// What a catalog says of itself.
const CONFIG: &str = r#"200 OK|{"defaults":{},"overrides":{}}"#;

fn config(login: Login) -> RestConfig {
    // Nobody listens on port 9 of this machine.
    RestConfig { uri: "http://127.0.0.1:9".to_owned(), warehouse: None, login, ca: None }
}

fn token() -> Login {
    Login::Token(Secret::new("CATALOG_TOKEN", "the-token"))
}

fn client() -> Login {
    Login::OAuth2(OAuth2 {
        client_id: Secret::new("CLIENT_ID", "the-id"),
        client_secret: Secret::new("CLIENT_SECRET", "the-secret"),
        server_uri: Some("http://login".to_owned()),
        scope: None,
    })
}

async fn catalog(login: Login) -> RestCatalog {
    catalog_at(&config(Login::None).uri, login).await
}

async fn catalog_at(uri: &str, login: Login) -> RestCatalog {
    let config = RestConfig { uri: uri.to_owned(), ..config(login) };
    let http = http::client(None, "catalog.ca", limits).expect("a client");
    let builder = RestCatalogBuilder::default().with_client(http);
    let client = builder.load(CATALOG_NAME, properties(&config)).await.expect("nothing is asked yet");
    RestCatalog { client, config, renewed: Mutex::default() }
}

fn refused(context: &'static str, value: &str) -> iceberg::Error {
    iceberg::Error::new(iceberg::ErrorKind::Unexpected, "x").with_context(context, value)
}

#[tokio::test]
async fn refusals_name_what_mends_them_and_never_the_secret() {
    let forbidden = "403 Forbidden";
    let cases = [
        (Login::None, "status", "401 Unauthorized", "catalog.token_env", ErrorKind::InvalidConfig),
        (token(), "status", "401 Unauthorized", "CATALOG_TOKEN", ErrorKind::InvalidConfig),
        (client(), "status", "401 Unauthorized", "catalog.oauth2.server_uri", ErrorKind::InvalidConfig),
        (client(), "code", "400 Bad Request, operation: auth", "CLIENT_SECRET", ErrorKind::InvalidConfig),
        (token(), "status", forbidden, "bronze, silver and gold", ErrorKind::InvalidConfig),
        (token(), "status", "404 Not Found", "catalog.warehouse", ErrorKind::InvalidConfig),
        (token(), "status", "301 Moved Permanently", "set catalog.uri", ErrorKind::InvalidConfig),
        (client(), "code", "307 Temporary Redirect, operation: auth", "server_uri", ErrorKind::InvalidConfig),
        (token(), "status", "403 Forbidden, json: no the-token", "$CATALOG_TOKEN", ErrorKind::InvalidConfig),
        (
            client(),
            "status",
            "503 x, json: the-secret of the-id",
            "$CLIENT_SECRET of $CLIENT_ID",
            ErrorKind::Unavailable,
        ),
        (token(), "status", "403 Forbidden, json: eyJhbG.the-.x-y", "…", ErrorKind::InvalidConfig),
        (token(), "status", "503 Service Unavailable", "http://127.0.0.1:9", ErrorKind::Unavailable),
    ];
    for (login, context, value, mend, kind) in cases {
        let explained = catalog(login).await.explain(refused(context, value));
        let said = text(&explained);
        assert!(said.contains(mend) && said.contains("http://127.0.0.1:9"), "{value}: {said}");
        assert!(!said.contains("the-"), "{said}");
        assert_eq!(failure(&explained, "x").kind(), kind, "{said}");
    }
}

#[tokio::test]
async fn what_answers_in_the_catalogs_place_stops_no_sink() {
    // Whoever answers knows the namespace, or nothing at all.
    for (knows, kind) in [(true, ErrorKind::NotFound), (false, ErrorKind::Unavailable)] {
        let uri = serve(move |_, path| match path {
            "/v1/config" => Some(CONFIG.to_owned()),
            "/v1/namespaces/bronze" if knows => Some(r#"200 OK|{"namespace":["bronze"],"properties":{}}"#.to_owned()),
            _ => Some("404 Not Found|nothing here".to_owned()),
        });
        let catalog = catalog_at(&uri, Login::None).await;
        let table = TableIdent::from_strs(["bronze", "posts"]).expect("a name");
        let error = failure(&catalog.load_table(&table).await.expect_err("no table"), "cannot load table");
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(error.to_string().contains(&uri), !knows, "{error}");
    }
}

#[tokio::test]
async fn redirects_are_told_and_not_followed() {
    let uri = serve(|_, path| match path {
        "/v1/config" => Some(CONFIG.to_owned()),
        "/elsewhere" => Some("204 No Content".to_owned()),
        _ => Some("301 Moved Permanently\r\nLocation: /elsewhere".to_owned()),
    });
    let error = catalog_at(&uri, token()).await.namespace_exists(&NamespaceIdent::new("bronze".to_owned())).await;
    let said = text(&error.expect_err("not followed"));
    assert!(said.contains("/elsewhere") && said.contains("set catalog.uri"), "{said}");
}

#[tokio::test]
async fn one_call_renews_the_token_for_all_that_began_before() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let uri = serve(move |_, path| match path {
        "/tokens" => {
            counted.fetch_add(1, Ordering::SeqCst);
            Some(r#"200 OK|{"access_token":"t","token_type":"bearer"}"#.to_owned())
        }
        _ => Some(CONFIG.to_owned()),
    });
    let mut login = client();
    if let Login::OAuth2(oauth) = &mut login {
        oauth.server_uri = Some(format!("{uri}/tokens"));
    }
    let catalog = catalog_at(&uri, login).await;
    catalog.renew(Instant::now()).await.expect("connected, and renewed");
    let (before, began) = (asked.load(Ordering::SeqCst), Instant::now());
    for renewed in futures::future::join_all((0..6).map(|_| catalog.renew(began))).await {
        renewed.expect("renewed");
    }
    assert_eq!(asked.load(Ordering::SeqCst), before + 1, "once for all");
    catalog.renew(Instant::now()).await.expect("renewed");
    assert_eq!(asked.load(Ordering::SeqCst), before + 2, "again for a call that began later");
}

#[tokio::test]
async fn kinds_that_a_commit_looks_at_stay_and_answers_are_not_repeated() {
    let catalog = catalog(token()).await;
    let conflict = iceberg::Error::new(iceberg::ErrorKind::CatalogCommitConflicts, "x").with_retryable(true);
    let conflict = catalog.explain(conflict);
    assert!(conflict.retryable() && conflict.kind() == iceberg::ErrorKind::CatalogCommitConflicts);
    let answer =
        iceberg::Error::new(iceberg::ErrorKind::Unexpected, "Failed to parse response from rest catalog server!");
    let foreign = catalog.explain(answer.with_context("json", "{\"access_token\": \"abc\"}"));
    assert!(!text(&foreign).contains("abc") && text(&foreign).contains("catalog.uri"), "{}", text(&foreign));
}

#[tokio::test]
async fn a_catalog_that_is_not_there_is_an_outside_fault_and_prints_no_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let storage = TableStorage::open(&StorageConfig::Local { root: folder.path().to_owned() }).expect("a folder");
    for login in [token(), client()] {
        let error = open(&config(login), &storage).await.expect_err("nobody listens");
        assert!(error.retryable() && error.to_string().contains("is it running"), "{error}");
    }
    let debug = format!("{:?}", catalog(client()).await);
    assert!(!debug.contains("the-"), "{debug}");
}
