//! Encrypted connections: HTTP/2, authorities that nobody knows, and machines that know none.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;

use super::*;

fn data(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/data/tls", name].iter().collect()
}

/// A server that speaks HTTP/2 alone, and answers everything with `CHAT`.
async fn serve_http2() -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(data("server.pem")).unwrap()],
            PrivateKeyDer::from_pem_file(data("server.key")).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not trust the certificate leaves here.
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let mut body = respond.send_response(Default::default(), false).unwrap();
                    body.send_data(CHAT.into(), true).unwrap();
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn http2_with_an_authority_of_ones_own() {
    let url = serve_http2().await;
    let known = ClientConfig { ca_file: Some(data("authority.pem")), ..config(Provider::Openai, &url) };
    let client = client(&known);
    for _ in 0..2 {
        let response = client.complete(&request(), None).await.unwrap();
        assert_eq!(response.choices[0].text, "grüße");
    }
    let failure =
        super::client(&config(Provider::Openai, &url)).complete(&request(), None).await.unwrap_err();
    assert_eq!(
        (failure.kind, failure.attempts.len()),
        (FailureKind::WrongAddress, 1),
        "{}",
        failure.error.to_line()
    );
    assert!(failure.error.hint().unwrap().contains("ca-certificates"));
    let file = ClientConfig { ca_file: Some(data("make.sh")), ..config(Provider::Openai, &url) };
    let failure = super::client(&file).complete(&request(), None).await.unwrap_err();
    assert!(failure.error.to_line().contains("make.sh"), "{}", failure.error.to_line());
}

/// The environment decides about certificates and proxies: these tests run themselves again with another one.
#[track_caller]
fn run_again(test: &str, environment: &[(&str, &str)]) {
    let name = format!("client::tests::tls::{test}");
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--ignored"])
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn a_machine_without_certificates_says_what_to_install() {
    let empty = tempfile::tempdir().unwrap();
    let dir = empty.path().to_str().unwrap();
    let file = empty.path().join("none.pem");
    std::fs::write(&file, "").unwrap();
    run_again("without_certificates", &[("SSL_CERT_FILE", file.to_str().unwrap()), ("SSL_CERT_DIR", dir)]);
}

#[tokio::test]
#[ignore = "run by `a_machine_without_certificates_says_what_to_install`"]
async fn without_certificates() {
    let failure = client(&config(Provider::Openai, "https://localhost:1"))
        .complete(&request(), None)
        .await
        .unwrap_err();
    assert!(failure.error.hint().unwrap().contains("ca-certificates"), "{}", failure.error.to_line());
    assert!(failure.attempts.len() == 1 && failure.unmetered == 0);
    // What is not encrypted goes on.
    let server = Server::answering(&[(200, "", CHAT)]);
    openai(&server).complete(&request(), None).await.unwrap();
}

#[test]
fn proxies_come_from_the_environment() {
    let proxy = Server::answering(&[(200, "", CHAT)]);
    run_again("through_a_proxy", &[("HTTP_PROXY", &proxy.url), ("http_proxy", &proxy.url), ("NO_PROXY", "")]);
    assert!(proxy.requests()[0].starts_with("POST http://models.example/v1/chat/completions "));
}

#[tokio::test]
#[ignore = "run by `proxies_come_from_the_environment`"]
async fn through_a_proxy() {
    client(&config(Provider::Openai, "http://models.example/v1")).complete(&request(), None).await.unwrap();
}
