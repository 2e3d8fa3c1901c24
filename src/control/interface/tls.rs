//! TLS 1.3 of the interface port (RFC 8446): a certificate of the node's own key at one end, its
//! peer ID at the other.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureAlgorithm,
    SignatureScheme,
};

use super::PROTOCOL;
use crate::crypto::{Identity, peer_of_certificate, spki_of};
use crate::model::PeerId;

/// The server's key exchanges, the preferred one first. The second is for clients in languages
/// whose TLS does not know the first yet.
const SERVER_KEY_EXCHANGES: [&dyn SupportedKxGroup; 2] =
    [kx_group::X25519MLKEM768, kx_group::X25519];
/// Ours as a client: every server of ours has it.
const CLIENT_KEY_EXCHANGES: [&dyn SupportedKxGroup; 1] = [kx_group::X25519MLKEM768];

/// The server's side: no client certificates, no resumption, no tickets, no early data.
pub(super) fn server_config(identity: &Arc<Identity>) -> Result<Arc<ServerConfig>, Error> {
    let chain = vec![CertificateDer::from(identity.certificate())];
    let key = CertifiedKey::new(chain, Arc::new(IdentityKey(Arc::clone(identity))));
    let mut config = ServerConfig::builder_with_provider(provider(&SERVER_KEY_EXCHANGES))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// The client's side: only this peer is spoken with. Whose key was found is told by the [`Pin`].
pub(super) fn client_config(expected: PeerId) -> Result<(Arc<ClientConfig>, Arc<Pin>), Error> {
    let provider = provider(&CLIENT_KEY_EXCHANGES);
    let pin = Arc::new(Pin { expected, found: Mutex::default(), provider: Arc::clone(&provider) });
    let verifier: Arc<dyn ServerCertVerifier> = Arc::clone(&pin) as Arc<_>;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Ok((Arc::new(config), pin))
}

fn provider(key_exchanges: &[&'static dyn SupportedKxGroup]) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { kx_groups: key_exchanges.to_vec(), ..default_provider() })
}

/// Signs handshakes with the identity key where it is: no other copy of it is made.
struct IdentityKey(Arc<Identity>);

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl SigningKey for IdentityKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let ours = offered.contains(&SignatureScheme::ED25519);
        ours.then(|| Box::new(Self(Arc::clone(&self.0))) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for IdentityKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature = self.0.sign_handshake(message);
        let signature =
            signature.ok_or_else(|| Error::General("no handshake of TLS 1.3".into()))?;
        Ok(signature.to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// Accepts whoever has the expected key, and nobody else. Names and dates say nothing.
pub(super) struct Pin {
    expected: PeerId,
    /// Who answered, proven by the handshake's signature.
    found: Mutex<Option<PeerId>>,
    provider: Arc<CryptoProvider>,
}

impl Pin {
    /// Who else answered, if somebody else did.
    pub(super) fn other(&self) -> Option<PeerId> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.filter(|found| *found != self.expected)
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({:?})", self.expected)
    }
}

impl ServerCertVerifier for Pin {
    /// Any Ed25519 key for now: whether it is the right one is asked once it is shown to be there.
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match peer_of_certificate(certificate) {
            Some(_) => Ok(ServerCertVerified::assertion()),
            None => Err(Error::InvalidCertificate(CertificateError::BadEncoding)),
        }
    }

    /// Never reached: nobody here speaks TLS 1.2.
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOfferedOrEnabled))
    }

    /// The signature is checked with the very key that is compared, so that it does not matter what
    /// else there is in the certificate or how somebody else would read it.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let bad = || Error::InvalidCertificate(CertificateError::BadSignature);
        if signed.scheme != SignatureScheme::ED25519 {
            return Err(bad());
        }
        let found = peer_of_certificate(certificate).ok_or_else(bad)?;
        let spki = spki_of(&found);
        let key = SubjectPublicKeyInfoDer::from(&spki[..]);
        let algorithms = &self.provider.signature_verification_algorithms;
        let valid = verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)?;
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        if found != self.expected {
            return Err(Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            ));
        }
        Ok(valid)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
