//! A token service, as registries with many users have one (distribution's documents, "Token Authentication
//! Specification"): who gives the password gets a signed token for one repository.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair, SigningKey};
use serde_json::json;

use super::upstream::BASIC;

/// As the registry's configuration names them.
pub(super) const SERVICE: &str = "ddr.test";
pub(super) const ISSUER: &str = "ddr-e2e";
/// How long a token is good. Seconds.
const LIFE_S: u64 = 300;
/// Bytes of one coordinate of a point on P-256, and of one half of a signature.
const HALF: usize = 32;

/// A service that runs until the process ends.
#[derive(Debug)]
pub(super) struct TokenService {
    /// `127.0.0.1:PORT`.
    pub(super) address: String,
    given: Arc<Mutex<Given>>,
}

#[derive(Debug, Default)]
struct Given {
    tokens: usize,
    refused: usize,
}

struct Signer {
    key: KeyPair,
    /// The certificate, DER.
    certificate: Vec<u8>,
}

impl TokenService {
    /// Starts it; `bundle` gets the certificate that the registry must trust.
    pub(super) fn start(bundle: &Path) -> Result<Self> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let certificate = CertificateParams::new(vec![ISSUER.to_owned()])?.self_signed(&key)?;
        fs::write(bundle, certificate.pem())?;
        let signer = Arc::new(Signer { key, certificate: certificate.der().to_vec() });
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let given = Arc::<Mutex<Given>>::default();
        let counts = Arc::clone(&given);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away is no concern of the service.
                answer(stream, &signer, &counts).ok();
            }
        });
        Ok(Self { address, given })
    }

    /// Tokens that it gave, and requests that it refused.
    pub(super) fn counts(&self) -> (usize, usize) {
        let given = self.given.lock().expect("unpoisoned");
        (given.tokens, given.refused)
    }
}

fn answer(mut stream: TcpStream, signer: &Signer, counts: &Mutex<Given>) -> Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let target = lines.next().context("no request")??;
    let head: Vec<String> = lines
        .take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty()))
        .collect::<io::Result<_>>()?;
    let wanted = format!("authorization: basic {}", BASIC.to_lowercase());
    let is_known = head.iter().any(|line| line.to_lowercase() == wanted);
    let (status, body) = if is_known {
        counts.lock().expect("unpoisoned").tokens += 1;
        ("200 OK", json!({ "token": signer.token(&target)?, "expires_in": LIFE_S }).to_string())
    } else {
        counts.lock().expect("unpoisoned").refused += 1;
        ("401 Unauthorized", "{}".to_owned())
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    Ok(())
}

impl Signer {
    /// A token for what the request line asks: `scope=repository:NAME:ACTIONS`.
    fn token(&self, target: &str) -> Result<String> {
        let query = target.split(['?', ' ']).nth(2).unwrap_or_default();
        let decoded = query.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
        let scope = decoded.split('&').find_map(|part| part.strip_prefix("scope="));
        let access: Vec<_> = scope
            .and_then(|scope| {
                let (name, actions) = scope.strip_prefix("repository:")?.rsplit_once(':')?;
                let actions: Vec<&str> = actions.split(',').collect();
                Some(json!({ "type": "repository", "name": name, "actions": actions }))
            })
            .into_iter()
            .collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let x5c = [STANDARD.encode(&self.certificate)];
        let head = json!({ "typ": "JWT", "alg": "ES256", "x5c": x5c });
        let claims = json!({
            "iss": ISSUER, "sub": "ci", "aud": SERVICE, "jti": now.to_string(),
            "iat": now, "nbf": now - 10, "exp": now + LIFE_S, "access": access,
        });
        let part = |json: &serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(&head), part(&claims));
        let signature = halves(&self.key.sign(signed.as_bytes())?)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// The two numbers of an ECDSA signature (DER, RFC 3279, section 2.2.3) as JWS wants them (RFC 7518, section 3.4).
fn halves(der: &[u8]) -> Result<[u8; 2 * HALF]> {
    let mut rest = der.get(2..).context("no signature")?;
    let mut out = [0; 2 * HALF];
    for half in out.chunks_mut(HALF) {
        let len = usize::from(*rest.get(1).context("a short signature")?);
        let number = rest.get(2..2 + len).context("a short signature")?;
        let number = &number[number.len().saturating_sub(HALF)..];
        ensure!(rest[0] == 2, "no number in the signature");
        half[HALF - number.len()..].copy_from_slice(number);
        rest = &rest[2 + len..];
    }
    Ok(out)
}
