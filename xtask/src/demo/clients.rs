//! The real clients of the demo: pkcs11-tool and openssl, with keys that live in the slot.
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Interrupt, shown};
use crate::lab::Lab;
use crate::problem::Problem;
use crate::process::{self, Background};
use crate::signing::{EC_LABEL, RSA_LABEL};

const SERVER_LOG: &str = "s_server.log";
const AES_LABEL: &str = "demo-aes";
/// The data that is signed and encrypted.
const TEXT: &[u8] = b"Hatoki: the keys live on three appliances, the application sees one slot.\n";

/// Where the clients find their things.
#[derive(Clone)]
pub(crate) struct Clients {
    lab: Lab,
    work: PathBuf,
}

impl Clients {
    pub(crate) fn new(lab: &Lab, work: &Path) -> Self {
        Self { lab: lab.clone(), work: work.to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Problem> {
        let path = self.path(name);
        std::fs::write(&path, bytes).map_err(|error| Problem::at(&path, &error))
    }

    /// pkcs11-tool on the slot, not logged in.
    fn tool(&self) -> Command {
        let mut command = self.lab.command("pkcs11-tool");
        command.current_dir(&self.work);
        command.arg("--module").arg(self.lab.programs().module()).args(["--token-label", self.lab.label()]);
        command
    }

    /// pkcs11-tool, logged in; the PIN is in the environment, not on the command line.
    fn logged_in(&self) -> Command {
        let mut command = self.tool();
        command.args(["--login", "--pin", "env:P11_PIN"]);
        command
    }

    fn openssl(&self) -> Command {
        let mut command = self.lab.command("openssl");
        command.current_dir(&self.work).env("OPENSSL_CONF", self.path("openssl.cnf"));
        command
    }

    /// Makes the three keys, lists them, and uses each with a second opinion.
    pub(crate) fn generate_and_use(&self, interrupt: &Interrupt) -> Result<(), Problem> {
        self.write("text", TEXT)?;
        self.write("openssl.cnf", self.engine_configuration().as_bytes())?;
        for (kind, what, id, label) in [
            ("--keypairgen", "rsa:2048", "01", RSA_LABEL),
            ("--keypairgen", "EC:prime256v1", "02", EC_LABEL),
            ("--keygen", "aes:32", "03", AES_LABEL),
        ] {
            shown(self.logged_in().args([kind, "--key-type", what, "--id", id, "--label", label]))?;
            interrupt.check()?;
        }
        shown(self.logged_in().arg("--list-objects"))?;
        self.sign_and_verify("01", RSA_LABEL, "SHA256-RSA-PKCS", &[])?;
        self.sign_and_verify("02", EC_LABEL, "ECDSA-SHA256", &["--signature-format", "openssl"])?;
        interrupt.check()?;
        self.encrypt_and_decrypt()?;
        self.certificate()
    }

    fn sign_and_verify(&self, id: &str, label: &str, mechanism: &str, more: &[&str]) -> Result<(), Problem> {
        let mut sign = self.logged_in();
        sign.args([
            "--sign",
            "--id",
            id,
            "--mechanism",
            mechanism,
            "--input-file",
            "text",
            "--output-file",
            "signature",
        ]);
        shown(sign.args(more))?;
        self.public_key(label, "public.pem")?;
        shown(self.openssl().args([
            "dgst",
            "-sha256",
            "-verify",
            "public.pem",
            "-signature",
            "signature",
            "text",
        ]))
        .map(drop)
    }

    fn encrypt_and_decrypt(&self) -> Result<(), Problem> {
        let iv = "000102030405060708090a0b0c0d0e0f";
        for (what, from, to) in [("--encrypt", "text", "cipher"), ("--decrypt", "cipher", "again")] {
            let mut command = self.logged_in();
            command.args([what, "--id", "03", "--mechanism", "AES-CBC-PAD", "--iv", iv]);
            shown(command.args(["--input-file", from, "--output-file", to]))?;
        }
        let again = self.path("again");
        match std::fs::read(&again).map_err(|error| Problem::at(&again, &error))? == TEXT {
            true => Ok(()),
            false => Err(Problem("what AES decrypted is not what it had encrypted".into())),
        }
    }

    /// A certificate for the RSA key, signed by that key through OpenSSL's engine.
    fn certificate(&self) -> Result<(), Problem> {
        let mut request = self.openssl();
        request
            .args(["req", "-x509", "-new", "-engine", "pkcs11", "-keyform", "engine", "-key"])
            .arg(self.uri(RSA_LABEL, "private"));
        shown(request.args(["-subj", "/CN=localhost", "-days", "2", "-out", "server.pem"])).map(drop)
    }

    /// Writes the public key of the pair to `file`, as PEM.
    ///
    /// OpenSSL reads it, since `--read-object` of OpenSC 0.23 uses freed memory for EC keys and fails at times.
    fn public_key(&self, label: &str, file: &str) -> Result<(), Problem> {
        let mut read = self.openssl();
        read.args(["pkey", "-engine", "pkcs11", "-inform", "engine", "-in"]).arg(self.uri(label, "public"));
        process::run(read.args(["-pubin", "-pubout", "-out", file])).map(drop)
    }

    fn uri(&self, label: &str, class: &str) -> String {
        format!("pkcs11:token={};object={label};type={class}", self.lab.label())
    }

    /// The engine gets module and PIN by a file that only we may read (its folder is 0700).
    fn engine_configuration(&self) -> String {
        format!(
            "openssl_conf = init\n[init]\nengines = engines\n[engines]\npkcs11 = pkcs11\n[pkcs11]\nengine_id = \
             pkcs11\nMODULE_PATH = {}\nPIN = {}\ninit = 0\n[req]\ndistinguished_name = name\n[name]\n",
            self.lab.programs().module().display(),
            self.lab.pin()
        )
    }

    /// One run of `pkcs11-tool --sign`, as a script would do it.
    pub(crate) fn sign_once(&self) -> Result<(), Problem> {
        let mut sign = self.logged_in();
        sign.args(["--sign", "--id", "01", "--mechanism", "SHA256-RSA-PKCS"]);
        process::run(sign.args(["--input-file", "text", "--output-file", "loop.signature"]))?;
        let mut verify = self.openssl();
        verify.args(["dgst", "-sha256", "-verify", "rsa.pem", "-signature", "loop.signature", "text"]);
        process::run(&mut verify).map(drop)
    }

    /// What the loop of [`sign_once`](Self::sign_once) verifies with.
    pub(crate) fn prepare_loop(&self) -> Result<(), Problem> {
        self.public_key(RSA_LABEL, "rsa.pem")
    }

    /// Starts `openssl s_server` with the key in the slot, and waits until it takes connections.
    pub(crate) fn server(&self) -> Result<(Background, u16), Problem> {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.map_err(|error| Problem(format!("no free port: {error}")))?.port();
        let file = self.log(SERVER_LOG)?;
        let mut command = self.openssl();
        command.args([
            "s_server",
            "-quiet",
            "-www",
            "-cert",
            "server.pem",
            "-engine",
            "pkcs11",
            "-keyform",
            "engine",
        ]);
        command
            .arg("-key")
            .arg(self.uri(RSA_LABEL, "private"))
            .arg("-accept")
            .arg(format!("127.0.0.1:{port}"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let mut server = Background::start(&mut command)?;
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok((server, port));
            }
            if !server.is_running() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(Problem(format!("openssl s_server does not listen:\n{}", self.said(SERVER_LOG))))
    }

    /// A file for what a program says on its standard error.
    pub(crate) fn log(&self, name: &str) -> Result<File, Problem> {
        let path = self.path(name);
        File::create(&path).map_err(|error| Problem::at(&path, &error))
    }

    /// What it said.
    pub(crate) fn said(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// One full handshake with that server, which proves its key.
    pub(crate) fn handshake(&self, port: u16) -> Result<(), Problem> {
        let mut client = Command::new("openssl");
        client.current_dir(&self.work).args([
            "s_client",
            "-brief",
            "-verify_return_error",
            "-CAfile",
            "server.pem",
        ]);
        process::run(client.args(["-connect", &format!("127.0.0.1:{port}")])).map(drop)
    }
}
