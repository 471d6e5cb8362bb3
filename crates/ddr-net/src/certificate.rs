//! The four certificates of a swarm and what may be read from them.
//!
//! ```text
//! swarm root (self-signed, every member holds its key)
//!   |-- member leaf       a node key, for client and server use, without expiry
//!   `-- token authority   path length 0, client use only, expires with its token
//!         `-- joiner leaf a node key, signed by the joining node itself
//! ```
//!
//! It decides the shape of each and who the holder of a verified chain is. It must never verify a
//! chain: that is webpki's work, in `carrier::tls::verify`.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SerialNumber, SignatureAlgorithm,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use webpki::EndEntityCert;

use crate::carrier::Standing;

/// The one DNS name in every member's certificate. It names the role, not the machine; a dialler
/// that knows the node ID checks the key as well.
pub(crate) const SERVER_NAME: &str = "node.ddr.internal";

/// Serial numbers of token authorities, in bytes; also the token's ID.
pub(crate) const SERIAL_BYTES: usize = 16;

/// DER of an Ed25519 SubjectPublicKeyInfo up to the key itself (RFC 8410, section 4).
const ED25519_SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

type Der = CertificateDer<'static>;

/// A node's public key as the subject of a certificate.
struct Subject<'a>(&'a [u8; 32]);

impl PublicKeyData for Subject<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

/// A new Ed25519 key for a swarm root or a token authority.
pub(crate) fn generate_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ED25519)
}

/// Reads an Ed25519 key from PKCS#8 DER.
pub(crate) fn read_key(pkcs8: &[u8]) -> Result<KeyPair, rcgen::Error> {
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &PKCS_ED25519)
}

/// A fresh serial. Its first byte keeps it a positive integer of exactly [`SERIAL_BYTES`] in DER.
pub(crate) fn random_serial() -> Result<[u8; SERIAL_BYTES], getrandom::Error> {
    let mut serial = [0u8; SERIAL_BYTES];
    getrandom::fill(&mut serial)?;
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial)
}

/// The self-signed root of the swarm with this key.
pub(crate) fn root(key: &KeyPair) -> Result<Der, rcgen::Error> {
    Ok(root_params(key).self_signed(key)?.into())
}

/// The leaf that makes the node with `public_key` a member.
///
/// It does not expire: a member holds the root key and could renew it at will, so an end date would
/// only add a way to fail.
pub(crate) fn member(root_key: &KeyPair, public_key: &[u8; 32]) -> Result<Der, rcgen::Error> {
    let mut params = leaf_params("ddr member")?;
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let issuer = Issuer::new(root_params(root_key), root_key);
    Ok(params.signed_by(&Subject(public_key), &issuer)?.into())
}

/// The authority inside a join token. Client use only: nobody can pose as a member that is dialled.
pub(crate) fn token_authority(
    root_key: &KeyPair,
    token_key: &KeyPair,
    serial: &[u8; SERIAL_BYTES],
    expires: SystemTime,
) -> Result<Der, rcgen::Error> {
    let mut params = token_params(serial);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(expires);
    let issuer = Issuer::new(root_params(root_key), root_key);
    Ok(params.signed_by(token_key, &issuer)?.into())
}

/// The leaf that a joining node signs for itself with the token's key.
pub(crate) fn joiner(
    token_key: &KeyPair,
    serial: &[u8; SERIAL_BYTES],
    public_key: &[u8; 32],
) -> Result<Der, rcgen::Error> {
    let mut params = leaf_params("ddr joiner")?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let issuer = Issuer::new(token_params(serial), token_key);
    Ok(params.signed_by(&Subject(public_key), &issuer)?.into())
}

/// The 32-byte Ed25519 public key of a certificate; `None` for any other kind of key or bad DER.
pub(crate) fn public_key(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let parsed = EndEntityCert::try_from(certificate).ok()?;
    let spki = parsed.subject_public_key_info();
    spki.as_ref().strip_prefix(&ED25519_SPKI_PREFIX)?.try_into().ok()
}

/// The serial of a token authority; `None` if it is not [`SERIAL_BYTES`] long or bad DER.
pub(crate) fn serial(certificate: &CertificateDer<'_>) -> Option<[u8; SERIAL_BYTES]> {
    EndEntityCert::try_from(certificate).ok()?.serial().try_into().ok()
}

/// Standing of the holder of a chain that has been verified up to the swarm root.
///
/// Invariant: without an intermediate, the verified chain is leaf and root, which only a member
/// has; webpki refuses an authority's own certificate as a leaf. With one, the holder is taken for
/// a joiner even if its leaf would do alone: this never gives a right away. Longer chains are not
/// ours and give `None`.
pub(crate) fn standing(intermediates: &[CertificateDer<'_>]) -> Option<Standing> {
    match intermediates {
        [] => Some(Standing::Member),
        [authority] => Some(Standing::Joiner { serial: serial(authority)? }),
        _ => None,
    }
}

/// The swarm is in the name so that a chain of another swarm fails as "unknown issuer".
fn root_params(key: &KeyPair) -> CertificateParams {
    let id = ddr_oci::digest::Digest::sha256(key.der_bytes());
    let mut params = authority_params(&format!("ddr swarm {}", id.short()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params
}

fn token_params(serial: &[u8; SERIAL_BYTES]) -> CertificateParams {
    let mut params = authority_params("ddr token");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.serial_number = Some(SerialNumber::from_slice(serial));
    params
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn leaf_params(name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new([SERVER_NAME.to_owned()])?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_survive_der_at_full_length() {
        let root_key = generate_key().unwrap();
        let token_key = generate_key().unwrap();
        for _ in 0..64 {
            let wanted = random_serial().unwrap();
            let expires = SystemTime::now();
            let der = token_authority(&root_key, &token_key, &wanted, expires).unwrap();
            assert_eq!(serial(&der), Some(wanted));
        }
    }

    #[test]
    fn a_leaf_carries_the_key_it_was_made_for() {
        let root_key = generate_key().unwrap();
        let key = [7u8; 32];
        assert_eq!(public_key(&member(&root_key, &key).unwrap()), Some(key));
        let root = root(&root_key).unwrap();
        assert_eq!(public_key(&root).unwrap(), root_key.der_bytes());
        assert_eq!(public_key(&CertificateDer::from(vec![0x30, 0x82, 1])), None);
    }

    #[test]
    fn chains_of_three_have_no_standing() {
        let authority = CertificateDer::from(vec![1, 2, 3]);
        assert_eq!(standing(&[]), Some(Standing::Member));
        assert_eq!(standing(std::slice::from_ref(&authority)), None, "not a certificate");
        assert_eq!(standing(&[authority.clone(), authority]), None);
    }
}
