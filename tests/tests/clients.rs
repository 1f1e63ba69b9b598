//! Real clients: OpenSC's pkcs11-tool, OpenSSL through libengine-pkcs11-openssl, Java's SunPKCS11.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tests::lab::{Lab, expect_ok};

const RSA_ID: &str = "0a";
const EC_ID: &str = "0b";

/// A key pair of each kind and an AES key, as the README's reader would make them.
fn furnish(lab: &Lab) {
    let make = |arguments: &[&str]| expect_ok(&lab.pkcs11_tool(arguments), &arguments.join(" "));
    make(&["--keypairgen", "--key-type", "rsa:2048", "--id", RSA_ID, "--label", "rsa-key"]);
    make(&["--keypairgen", "--key-type", "EC:prime256v1", "--id", EC_ID, "--label", "ec-key"]);
    make(&["--keygen", "--key-type", "AES:32", "--id", "0c", "--label", "aes-key"]);
}

fn openssl(lab: &Lab, arguments: &[&str]) -> Output {
    openssl_command(lab).args(arguments).output().expect("openssl starts")
}

fn openssl_command(lab: &Lab) -> Command {
    let mut command = lab.command("openssl");
    command.env("PKCS11_MODULE_PATH", lab.value("P11_MODULE"));
    command
}

fn uri(lab: &Lab, label: &str, class: &str) -> String {
    format!(
        "pkcs11:token={};object={label};type={class};pin-value={}",
        lab.value("P11_TOKEN_LABEL"),
        lab.value("P11_PIN")
    )
}

/// A self-signed certificate for a key in the slot, made by OpenSSL; also put into the slot.
fn certify(lab: &Lab, label: &str, id: &str) -> String {
    let pem = lab.path().join(format!("{label}.pem")).display().to_string();
    let key = uri(lab, label, "private");
    let subject = format!("/CN={label}");
    let arguments = [
        "req", "-new", "-x509", "-days", "30", "-sha256", "-engine", "pkcs11", "-keyform", "engine", "-key",
        &key, "-subj", &subject, "-out", &pem,
    ];
    expect_ok(&openssl(lab, &arguments), "openssl req");
    let der = lab.path().join(format!("{label}.der")).display().to_string();
    expect_ok(&openssl(lab, &["x509", "-in", &pem, "-outform", "DER", "-out", &der]), "openssl x509");
    expect_ok(
        &lab.pkcs11_tool(&["--write-object", &der, "--type", "cert", "--id", id, "--label", label]),
        "write the certificate",
    );
    expect_ok(&openssl(lab, &["verify", "-CAfile", &pem, &pem]), "openssl verify");
    pem
}

#[test]
fn pkcs11_tool_test_runs_clean_over_rsa_ec_and_aes() {
    let lab = Lab::up(3);
    furnish(&lab);
    let output = lab.pkcs11_tool(&["--test"]);
    let text =
        format!("{}{}", expect_ok(&output, "pkcs11-tool --test"), String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("No errors"), "{text}");
    for wanted in ["rsa-key", "ec-key"] {
        assert!(text.contains(wanted), "{wanted} is not named:\n{text}");
    }
    assert!(!text.to_lowercase().contains("error:"), "{text}");
    for wanted in ["Signatures (currently only for RSA)", "testing key 0", "testing key 1"] {
        assert!(text.contains(wanted), "{wanted:?} is missing:\n{text}");
    }
    assert!(text.contains("RSA-PKCS: OK"), "{text}");
    aes_round_trip(&lab);
    ec_round_trips(&lab, 1);
    let pair = ["--id", "77", "--label", "test-ec", "--key-type", "EC:prime256v1"];
    let output = lab.pkcs11_tool(&[&["--session-rw", "--test-ec"][..], &pair].concat());
    let text = expect_ok(&output, "pkcs11-tool --test-ec");
    for wanted in ["Generating EC key pair", "Doing a signature", "==> OK"] {
        assert!(text.contains(wanted), "{wanted:?} is missing:\n{text}");
    }
    let output = lab.pkcs11_tool(&["--test-fork"]);
    let text = format!(
        "{}{}",
        expect_ok(&output, "pkcs11-tool --test-fork"),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("forked child") && !text.contains("failed"), "{text}");
}

#[test]
fn valgrind_finds_no_wrong_memory_access_in_the_module_while_a_member_dies() {
    let lab = Lab::up(3);
    let mut scene = lab.scene_in_valgrind("steps");
    scene.expect("READY");
    let mut done = |line: &str, count: usize| assert_eq!(scene.step(line), format!("DONE {count}"), "{line}");
    done(&format!("login {}", lab.value("P11_PIN")), 0);
    for (line, count) in [("pair v", 2), ("secret w", 1), ("select w", 1), ("macs 20", 20), ("read", 1)] {
        done(line, count);
    }
    lab.kill_now(2);
    for (line, count) in [("macs 20", 20), ("rename x", 1), ("select x", 1), ("destroy", 1), ("logout", 0)] {
        done(line, count);
    }
    scene.write(b"end\n");
    scene.finish();
}

/// What `--test` of OpenSC passes over: the EC key, signing through the same tool, verified by OpenSSL. How long each run of the
/// tool took, from its start to its exit.
fn ec_round_trips(lab: &Lab, runs: usize) -> Vec<Duration> {
    let path = |name: &str| lab.path().join(name).display().to_string();
    let (data, signature, public) = (path("signed"), path("signature"), ec_public(lab));
    let sign = ["--sign", "--mechanism", "ECDSA-SHA256", "--id", EC_ID, "--signature-format", "openssl"];
    let files = ["--input-file", &data, "--output-file", &signature];
    let one = |run| {
        std::fs::write(&data, format!("some bytes, different in run {run}")).unwrap();
        let begun = Instant::now();
        let output = lab.pkcs11_tool(&[&sign[..], &files].concat());
        let took = begun.elapsed();
        expect_ok(&output, "ECDSA signature");
        let verify = ["dgst", "-sha256", "-verify", &public, "-signature", &signature, &data];
        expect_ok(&openssl(lab, &verify), "openssl dgst -verify");
        took
    };
    (0..runs).map(one).collect()
}

/// The file of the EC key's public half.
///
/// OpenSSL reads it, since `--read-object` of OpenSC 0.23 uses freed memory for EC keys and fails at times with "cannot create
/// EVP_PKEY".
fn ec_public(lab: &Lab) -> String {
    let public = lab.path().join("ec.pub").display().to_string();
    let key = uri(lab, "ec-key", "public");
    let read =
        ["pkey", "-engine", "pkcs11", "-inform", "engine", "-in", &key, "-pubin", "-pubout", "-out", &public];
    expect_ok(&openssl(lab, &read), "read the public key");
    public
}

/// Each run is a process of its own: the module is loaded and initialised, connects, logs in, finds the key and signs.
#[test]
fn pkcs11_tool_signs_with_p256_from_a_cold_start_each_time() {
    let lab = Lab::up(2);
    furnish(&lab);
    let mut took = ec_round_trips(&lab, 10);
    // The second run and those after it may use what the first one has left.
    let (first, second) = (took.remove(0), took[0]);
    took.sort_unstable();
    let middle = took[took.len() / 2];
    println!(
        "pkcs11-tool --sign, from start to exit: {first:?}, then {second:?}; the middle of nine {middle:?}"
    );
}

/// What `--test` of OpenSC has no test for: the AES key, used through the same tool.
fn aes_round_trip(lab: &Lab) {
    let path = |name: &str| lab.path().join(name).display().to_string();
    std::fs::write(path("plain"), b"sixteen bytes and some more").unwrap();
    let iv = ["--mechanism", "AES-CBC-PAD", "--iv", "000102030405060708090a0b0c0d0e0f", "--id", "0c"];
    let (plain, sealed, opened) = (path("plain"), path("sealed"), path("opened"));
    let encrypt = [&["--encrypt", "--input-file", &plain, "--output-file", &sealed][..], &iv].concat();
    expect_ok(&lab.pkcs11_tool(&encrypt), "AES encryption");
    let decrypt = [&["--decrypt", "--input-file", &sealed, "--output-file", &opened][..], &iv].concat();
    expect_ok(&lab.pkcs11_tool(&decrypt), "AES decryption");
    assert_ne!(std::fs::read(&sealed).unwrap(), std::fs::read(&plain).unwrap());
    assert_eq!(std::fs::read(&opened).unwrap(), std::fs::read(&plain).unwrap());
}

#[test]
fn openssl_makes_certificates_and_serves_tls_with_keys_in_the_slot() {
    let lab = Lab::up(2);
    furnish(&lab);
    for (label, id) in [("rsa-key", RSA_ID), ("ec-key", EC_ID)] {
        let pem = certify(&lab, label, id);
        let mut server = Server::start(&lab, label, &pem);
        for _ in 0..3 {
            server.handshake(&pem);
        }
    }
}

/// An `openssl s_server` with its key in the slot.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(lab: &Lab, label: &str, pem: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = openssl_command(lab)
            .args([
                "s_server",
                "-engine",
                "pkcs11",
                "-keyform",
                "engine",
                "-key",
                &uri(lab, label, "private"),
                "-cert",
                pem,
            ])
            .args(["-accept", &format!("127.0.0.1:{port}"), "-quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl starts");
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "openssl s_server does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { child, port }
    }

    fn handshake(&mut self, pem: &str) {
        let output = Command::new("openssl")
            .args([
                "s_client",
                "-connect",
                &format!("127.0.0.1:{}", self.port),
                "-CAfile",
                pem,
                "-verify_return_error",
            ])
            .stdin(Stdio::null())
            .output()
            .expect("openssl starts");
        let text = expect_ok(&output, "openssl s_client");
        assert!(text.contains("Verify return code: 0 (ok)"), "{text}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The file that tells SunPKCS11 about the module.
fn java_configuration(lab: &Lab) -> String {
    let path = lab.path().join("java.cfg");
    let text = format!("name = Hatoki\nlibrary = {}\nslotListIndex = 0\n", lab.value("P11_MODULE"));
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn java(lab: &Lab, alias: &str, count: u32, until_told: &[&str]) -> Child {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/java/Sign.java");
    lab.command("java")
        .args([source, &java_configuration(lab), alias, &count.to_string()])
        .args(until_told)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("java starts (install default-jdk-headless)")
}

#[test]
fn java_lists_the_key_store_and_signs() {
    let lab = Lab::up(2);
    furnish(&lab);
    certify(&lab, "rsa-key", RSA_ID);
    let output = java(&lab, "rsa-key", 5, &[]).wait_with_output().unwrap();
    let text = expect_ok(&output, "java");
    assert!(text.contains("ALIAS rsa-key key=true"), "{text}");
    assert!(text.contains("SIGNED 5"), "{text}");
}

#[test]
fn tool_server_and_java_see_no_error_while_a_member_is_killed_and_restarted() {
    let lab = Lab::up(3);
    furnish(&lab);
    let pem = certify(&lab, "rsa-key", RSA_ID);
    let mut server = Server::start(&lab, "rsa-key", &pem);
    let mut java = java(&lab, "rsa-key", 1000, &["until-told"]);
    let mut java_says = BufReader::new(java.stdout.take().unwrap());
    let public = lab.path().join("rsa.pub").display().to_string();
    expect_ok(&openssl(&lab, &["x509", "-in", &pem, "-pubkey", "-noout", "-out", &public]), "openssl x509");
    let mut line = String::new();
    while !line.starts_with("READY") {
        line.clear();
        assert!(java_says.read_line(&mut line).unwrap() > 0, "java ended early");
    }
    let message = lab.path().join("message").display().to_string();
    std::fs::write(&message, b"signed while a member dies").unwrap();
    for round in 0..50 {
        let member = round / 10 % 3 + 1;
        match round % 10 {
            2 => {
                lab.kill_now(member);
                assert!(java.try_wait().unwrap().is_none(), "java has ended before round {round}");
            }
            6 => drop(lab.lab("start", Some(member))),
            _ => {}
        }
        tool_signs(&lab, &message, &public);
        server.handshake(&pem);
        server.handshake(&pem);
    }
    assert!(java.try_wait().unwrap().is_none(), "java has ended before it was told to");
    drop(java.stdin.take());
    let mut rest = String::new();
    while java_says.read_line(&mut rest).unwrap() > 0 {}
    assert!(java.wait().unwrap().success(), "java failed:\n{rest}");
    let signed: u32 = rest.split("SIGNED ").nth(1).unwrap().trim().parse().unwrap();
    assert!(signed >= 1000, "{rest}");
    println!("java made {signed} signatures");
}

/// One run of `pkcs11-tool --sign`, verified by OpenSSL.
fn tool_signs(lab: &Lab, message: &str, public: &str) {
    let signature = lab.path().join("signature").display().to_string();
    let sign = ["--sign", "--mechanism", "SHA256-RSA-PKCS", "--id", RSA_ID, "--input-file", message];
    expect_ok(&lab.pkcs11_tool(&[&sign[..], &["--output-file", &signature]].concat()), "pkcs11-tool --sign");
    let verify = ["dgst", "-sha256", "-verify", public, "-signature", &signature, message];
    expect_ok(&openssl(lab, &verify), "openssl dgst -verify");
}

/// Files of one comparison.
struct Files {
    key: String,
    input: String,
    ours: String,
    theirs: String,
}

impl Files {
    fn sign_here(&self, lab: &Lab) -> Output {
        let arguments = ["--sign", "--mechanism", "RSA-PKCS", "--id", "0d", "--input-file", &self.input];
        lab.pkcs11_tool(&[&arguments[..], &["--output-file", &self.ours]].concat())
    }

    /// The slot's signature over `data` equals that of an OpenSSL command over `theirs`.
    fn compare(&self, lab: &Lab, data: &[u8], command: &[&str], theirs: &[u8]) {
        let what = format!("RSA-PKCS over {} bytes", data.len());
        std::fs::write(&self.input, data).unwrap();
        expect_ok(&self.sign_here(lab), &what);
        std::fs::write(&self.input, theirs).unwrap();
        let arguments = ["-inkey", &self.key, "-in", &self.input, "-out", &self.theirs];
        expect_ok(&openssl(lab, &[command, &arguments[..]].concat()), &what);
        assert_eq!(std::fs::read(&self.ours).unwrap(), std::fs::read(&self.theirs).unwrap(), "{what}");
    }
}

/// DigestInfo of SHA-1, SHA-224, SHA-256, SHA-384, SHA-512 in front of the digest: name, DER, digest length in bytes.
const DIGEST_INFOS: [(&str, &[u8], u8); 5] = [
    ("sha1", &[0x30, 0x21, 0x30, 9, 6, 5, 0x2b, 0x0e, 3, 2, 0x1a, 5, 0, 4, 0x14], 20),
    ("sha224", &[0x30, 0x2d, 0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 4, 5, 0, 4, 0x1c], 28),
    ("sha256", &[0x30, 0x31, 0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20], 32),
    ("sha384", &[0x30, 0x41, 0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2, 5, 0, 4, 0x30], 48),
    ("sha512", &[0x30, 0x51, 0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3, 5, 0, 4, 0x40], 64),
];

/// `CKM_RSA_PKCS` signs any 0 to k-11 bytes as `openssl pkeyutl` does; for k-11, which pkeyutl takes for no hash, as the
/// older `rsautl`.
#[test]
fn rsa_pkcs_signs_any_input_as_openssl_does() {
    let lab = Lab::up(1);
    let path = |name: &str| lab.path().join(name).display().to_string();
    let files =
        Files { key: path("imported.pem"), input: path("in"), ours: path("ours"), theirs: path("theirs") };
    expect_ok(&openssl(&lab, &["genrsa", "-out", &files.key, "2048"]), "openssl genrsa");
    let der = path("imported.der");
    expect_ok(&openssl(&lab, &["rsa", "-in", &files.key, "-outform", "DER", "-out", &der]), "openssl rsa");
    let import =
        ["--write-object", &der, "--type", "privkey", "--id", "0d", "--label", "imported", "--usage-sign"];
    expect_ok(&lab.pkcs11_tool(&import), "import");
    for (name, prefix, digest_bytes) in DIGEST_INFOS {
        let digest: Vec<u8> = (0..digest_bytes).collect();
        let option = format!("digest:{name}");
        files.compare(&lab, &[prefix, &digest].concat(), &["pkeyutl", "-sign", "-pkeyopt", &option], &digest);
    }
    for data in [vec![0x5a; 36], Vec::new()] {
        files.compare(&lab, &data, &["pkeyutl", "-sign"], &data);
    }
    let longest = vec![0x7b; 256 - 11];
    files.compare(&lab, &longest, &["rsautl", "-sign"], &longest);
    let recovered = path("recovered");
    let recover = ["pkeyutl", "-verifyrecover", "-inkey", &files.key, "-in", &files.ours, "-out", &recovered];
    expect_ok(&openssl(&lab, &recover), "openssl pkeyutl -verifyrecover");
    assert_eq!(std::fs::read(&recovered).unwrap(), longest);
    std::fs::write(&files.input, vec![1; 256 - 10]).unwrap();
    let refused = files.sign_here(&lab);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("CKR_DATA_LEN_RANGE"), "{refused:?}");
}
