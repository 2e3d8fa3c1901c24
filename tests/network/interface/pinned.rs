//! A client speaks with the peer it was told, and with nobody else.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use distmsg::control::interface::PROTOCOL;
use distmsg::crypto::{Identity, Random};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, NamedGroup, ServerConfig,
    ServerConnection, SignatureScheme,
};

use super::{authenticate, connect, pinned, token_of, with_interface};
use crate::daemon::{Daemon, SOON};
use crate::running::Output;

/// Somebody who answers in a daemon's place: with a certificate of that daemon, if it has one, but
/// never with its key. Tells what it was sent, in clear text and decrypted.
fn impostor(certificate: Vec<u8>) -> (String, Receiver<Vec<u8>>) {
    let own = Identity::generate(&mut Random::from_seed([9; 32]));
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.to_pkcs8().to_vec()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = provider.key_provider.load_private_key(key).expect("a key");
    let chain = vec![CertificateDer::from(certificate)];
    let certified = rustls::sign::CertifiedKey::new(chain, key);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a version")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let (sent, received) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = Recording { stream: stream.expect("a connection"), bytes: Vec::new() };
            let tls = ServerConnection::new(Arc::clone(&config)).expect("a connection");
            let mut tls = rustls::StreamOwned::new(tls, stream);
            let mut all = Vec::new();
            let _ = tls.read_to_end(&mut all);
            all.extend_from_slice(&tls.sock.bytes);
            if sent.send(all).is_err() {
                return;
            }
        }
    });
    (address, received)
}

/// A connection, and what came by it.
struct Recording {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl std::io::Read for Recording {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.stream.read(buffer)?;
        self.bytes.extend_from_slice(&buffer[..read]);
        Ok(read)
    }
}

impl std::io::Write for Recording {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

/// The certificate that a daemon shows to everybody.
fn certificate_of(daemon: &Daemon) -> Vec<u8> {
    let pem = std::fs::read_to_string(daemon.state_dir().join("identity.pem")).expect("a key");
    Identity::from_pem(&pem).expect("an identity").certificate()
}

/// Asks an impostor in the daemon's place. The token must not have reached it in any form.
fn ask_impostor(a: &Daemon, certificate: Vec<u8>) -> Output {
    let (address, received) = impostor(certificate);
    let output = a.ctl(&["--interface", &format!("{}@{address}", a.peer), "id"]);
    let got = received.recv_timeout(SOON).expect("it was asked");
    assert!(got.len() > 100, "it was greeted: {} B", got.len());
    let token = token_of(a);
    let has = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    assert!(!has(&got, token.as_bytes()) && !has(&got, b"authenticate"), "{got:?}");
    output
}

#[test]
fn another_key_is_exit_6_with_its_id_and_the_token_is_never_sent() {
    let (a, b) = (with_interface("a", "127.0.0.2:0"), with_interface("b", "127.0.0.2:0"));
    // A daemon that is another one.
    let address = pinned(&b).replace(&b.peer, &a.peer);
    let refused = a.ctl(&["--interface", &address, "id"]).exits(6).stderr;
    assert!(refused.contains(&b.peer) && refused.contains("nothing was sent to it"), "{refused}");
    let json = a.ctl(&["--interface", &address, "id", "--json"]).exits(6).stderr;
    assert!(json.contains("\"code\":\"identity_mismatch\"") && json.contains(&b.peer), "{json}");
    assert!(!b.log().contains("wrong token"), "{}", b.log());
    // Somebody with a key and a certificate of their own, who would accept any token.
    let own = Identity::generate(&mut Random::from_seed([9; 32]));
    let refused = ask_impostor(&a, own.certificate()).exits(6).stderr;
    assert!(refused.contains(&own.peer().to_string()), "{refused}");
}

#[test]
fn a_certificate_without_its_key_is_worth_nothing() {
    let a = with_interface("a", "127.0.0.2:0");
    // Everybody can have the daemon's certificate; it signs nothing.
    let refused = ask_impostor(&a, certificate_of(&a)).exits(3).stderr;
    assert!(refused.contains("does not speak TLS as an interface port does"), "{refused}");
    let refused = ask_impostor(&a, vec![0x30, 0]).exits(3).stderr;
    assert!(refused.contains("does not speak TLS as an interface port does"), "{refused}");
}

#[test]
fn what_answers_and_is_no_interface_port_is_said_to_be_none() {
    let a = with_interface("a", "127.0.0.2:0");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    let pinned = format!("{}@{address}", a.peer);
    let refused = a.ctl(&["--interface", &pinned, "id"]).exits(3).stderr;
    assert!(refused.contains("check the address") && refused.lines().count() == 1, "{refused}");
    let refused = a.ctl(&["--interface", &address.to_string(), "id"]).exits(3).stderr;
    assert!(refused.contains("check the address") && refused.lines().count() == 1, "{refused}");
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = nobody.local_addr().expect("bound").to_string();
    drop(nobody);
    let refused = a.ctl(&["--interface", &address, "id"]).exits(3).stderr;
    assert!(refused.contains("nobody answers there; check that the daemon runs"), "{refused}");
}

/// Takes any certificate: what is looked at here is the handshake.
#[derive(Debug)]
struct AnyCertificate(rustls::crypto::WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        panic!("nobody here speaks TLS 1.2")
    }

    /// As every TLS library does it: by the certificate, which must be one for that.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Shakes hands with a daemon as a client with these key exchanges, and shows the token. The one
/// that was agreed on, and how many tickets came for the next time.
fn shake_hands(
    a: &Daemon,
    key_exchanges: &[&'static dyn SupportedKxGroup],
) -> std::io::Result<(NamedGroup, u32)> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let provider = CryptoProvider { kx_groups: key_exchanges.to_vec(), ..provider };
    let verifier = AnyCertificate(provider.signature_verification_algorithms);
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a version")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    let name = ServerName::try_from("localhost").expect("a name");
    let tls = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut tls = rustls::StreamOwned::new(tls, connect(a));
    tls.write_all(format!("{}\n", authenticate(&token_of(a))).as_bytes())?;
    let mut reply = String::new();
    BufReader::new(&mut tls).read_line(&mut reply)?;
    assert!(reply.contains("result"), "{reply}");
    let group = tls.conn.negotiated_key_exchange_group().expect("agreed on");
    Ok((group.name(), tls.conn.tls13_tickets_received()))
}

#[test]
fn keys_are_agreed_on_with_the_hybrid_where_a_client_knows_it_and_nothing_is_resumed() {
    let a = with_interface("a", "127.0.0.2:0");
    let (hybrid, x25519) = (kx_group::X25519MLKEM768, kx_group::X25519);
    for (offered, agreed) in [
        (&[hybrid][..], NamedGroup::X25519MLKEM768),
        (&[hybrid, x25519], NamedGroup::X25519MLKEM768),
        (&[x25519], NamedGroup::X25519),
    ] {
        assert_eq!(shake_hands(&a, offered).expect("a handshake"), (agreed, 0));
    }
    assert!(shake_hands(&a, &[kx_group::SECP256R1]).is_err(), "no other is taken");
    a.ctl(&["--interface", &pinned(&a), "id"]).exits(0);
}
