//! TLS 1.3 with raw public keys both ways (RFC 8446, RFC 7250).
//!
//! No certificate, no name, no date: a key is genuine if it signed the handshake, and the peer is
//! who its key says. Whether it is the peer that was meant is for the caller to ask.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer,
    UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::socket::Socket;
use crate::crypto::{Identity, peer_of_spki};
use crate::model::PeerId;

/// The one application protocol (ALPN, RFC 7301).
const PROTOCOL: &[u8] = b"distmsg/1";

/// The exporter's label (RFC 8446 section 7.5) for what the network proof is made over.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-distmsg-network-proof";

/// Bytes of TLS records that may wait for the kernel: one batch of frames, its record headers and
/// tags, so that a batch leaves in one vectored write.
const RECORDS_BYTES_MAX: usize = 320 * 1024;

/// The two configurations that every connection of a node uses.
pub(super) struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

/// A connection whose other end proved that it has the key of `peer`.
pub(super) struct Secured {
    pub(super) stream: TlsStream<Socket>,
    pub(super) peer: PeerId,
    /// What only the two ends of this connection know.
    pub(super) exporter: [u8; 32],
}

impl Tls {
    /// Configurations that authenticate as this identity.
    pub(super) fn new(identity: &Identity) -> Result<Self, Error> {
        let (server, client) = (server_config(identity)?, client_config(identity)?);
        Ok(Self { acceptor: Arc::new(server).into(), connector: Arc::new(client).into() })
    }

    /// The TLS handshake with somebody who dialled.
    pub(super) async fn accept(&self, socket: Socket) -> io::Result<Secured> {
        let roomy =
            |tls: &mut rustls::ServerConnection| tls.set_buffer_limit(Some(RECORDS_BYTES_MAX));
        let stream = self.acceptor.accept_with(socket, roomy).await?;
        let exporter = stream
            .get_ref()
            .1
            .export_keying_material([0; 32], EXPORTER_LABEL, None)
            .map_err(io::Error::other)?;
        Secured::new(stream.into(), exporter)
    }

    /// The TLS handshake with somebody dialled.
    pub(super) async fn connect(&self, socket: Socket) -> io::Result<Secured> {
        // The library wants a name; with SNI off it is neither sent nor checked.
        let name = ServerName::try_from("distmsg").map_err(io::Error::other)?;
        let roomy =
            |tls: &mut rustls::ClientConnection| tls.set_buffer_limit(Some(RECORDS_BYTES_MAX));
        let stream = self.connector.connect_with(name, socket, roomy).await?;
        let exporter = stream
            .get_ref()
            .1
            .export_keying_material([0; 32], EXPORTER_LABEL, None)
            .map_err(io::Error::other)?;
        Secured::new(stream.into(), exporter)
    }
}

impl Secured {
    fn new(stream: TlsStream<Socket>, exporter: [u8; 32]) -> io::Result<Self> {
        let (_, tls) = stream.get_ref();
        // An offer without ours is refused by the library; here falls who offered none at all.
        if tls.alpn_protocol() != Some(PROTOCOL) {
            return Err(io::Error::other("the peer does not speak distmsg/1"));
        }
        let peer = match tls.peer_certificates() {
            Some([key]) => peer_of_spki(key),
            _ => None,
        };
        let peer = peer.ok_or_else(|| io::Error::other("the peer has no Ed25519 key"))?;
        Ok(Self { stream, peer, exporter })
    }
}

/// Whether a handshake failed for what was said in it; otherwise the connection broke.
pub(super) fn is_of_tls(error: &io::Error) -> bool {
    error.get_ref().is_some() && error.kind() != io::ErrorKind::UnexpectedEof
}

pub(super) fn server_config(identity: &Identity) -> Result<ServerConfig, Error> {
    let provider = provider();
    let verifier = Arc::new(RawKeys(provider.signature_verification_algorithms));
    let key = certified_key(identity, &provider)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

pub(super) fn client_config(identity: &Identity) -> Result<ClientConfig, Error> {
    let provider = provider();
    let verifier = Arc::new(RawKeys(provider.signature_verification_algorithms));
    let key = certified_key(identity, &provider)?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Ok(config)
}

/// The library's algorithms with one key exchange only: whoever records today's links must not be
/// able to read them with tomorrow's quantum computer.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { kx_groups: vec![kx_group::X25519MLKEM768], ..default_provider() })
}

fn certified_key(
    identity: &Identity,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, Error> {
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.to_pkcs8().to_vec()));
    let key = provider.key_provider.load_private_key(private)?;
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(identity.to_spki())], key)))
}

/// Accepts any Ed25519 key, alone, that signed the handshake; nothing else.
pub(super) struct RawKeys(pub(super) WebPkiSupportedAlgorithms);

impl RawKeys {
    fn check_key(key: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        if others.is_empty() && peer_of_spki(key).is_some() {
            Ok(())
        } else {
            Err(Error::InvalidCertificate(CertificateError::BadEncoding))
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if signed.scheme != SignatureScheme::ED25519 {
            return Err(Error::InvalidCertificate(CertificateError::BadSignature));
        }
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.0)
    }

    /// Never reached: nobody here speaks TLS 1.2.
    fn refuse_tls12() -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOfferedOrEnabled))
    }
}

impl fmt::Debug for RawKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawKeys")
    }
}

impl ServerCertVerifier for RawKeys {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Self::check_key(key, others).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for RawKeys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Self::check_key(key, others).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
