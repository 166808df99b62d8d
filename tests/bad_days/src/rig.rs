//! The real program as hub and as gateway, each a process of its own, with a folder for both.

mod certificates;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use iothub::sas::Key;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    history::{Event, Kind, Recorder, Trouble},
    hub::Hub,
    process::{self, Line, Process},
};

/// What a rig is made with.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The program.
    pub(crate) program: PathBuf,
    /// A folder that is there.
    pub(crate) folder: PathBuf,
    /// Who takes part.
    pub(crate) crowd: Crowd,
    /// Lines for the section `[disk]` of the configuration beside the folder's.
    pub(crate) disk: String,
    /// The store's folder, if it is not in the rig's.
    pub(crate) store: Option<PathBuf>,
}

/// How many devices of which kind.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Crowd {
    /// Every other one has its messages in the hub's custody.
    pub(crate) devices: usize,
    /// As many of the devices have a module.
    pub(crate) modules: usize,
    /// More devices, whose own tokens the hub judges: the gateway holds no key of theirs.
    pub(crate) passed_through: usize,
}

/// Hub and gateway.
pub(crate) struct Rig {
    /// What is seen is written here.
    pub(crate) recorder: Recorder,
    /// The hub.
    pub(crate) hub: Hub,
    /// The devices' names and tokens.
    pub(crate) devices: Vec<Credentials>,
    /// Where the store keeps its files.
    pub(crate) store: PathBuf,
    authority: reqwest::Certificate,
    folder: PathBuf,
    program: PathBuf,
    gateway: Option<Process>,
    port: watch::Sender<Option<u16>>,
}

/// A device as the gateway knows it.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    /// Its name; a module's has that of its device before it.
    pub(crate) id: String,
    /// How the gateway treats it.
    pub(crate) kind: Kind,
    /// What it has for `Authorization`.
    pub(crate) authorization: String,
}

/// A device as hub and configuration know it.
struct Enrolled {
    id: String,
    kind: Kind,
    /// Its key at the hub.
    key: String,
}

impl Rig {
    /// Starts a hub, and a gateway for as long as it takes to make tokens.
    pub(crate) async fn start(setup: Setup) -> Result<Self> {
        let Setup {
            program,
            folder,
            crowd,
            disk,
            store,
        } = setup;
        let recorder = Recorder::create(&folder.join("history.jsonl"))?;
        let ids = crowd.ids();
        let hub = Hub::start(&program, &folder, &ids, recorder.clone()).await?;
        let enrolled = crowd.enroll(&hub).await?;
        for Enrolled { id, kind, .. } in &enrolled {
            let (device, kind) = (id.clone(), *kind);
            recorder.note(Event::Enrolled { device, kind });
        }
        let authority = certificates::make(&folder)?;
        let store = store.unwrap_or_else(|| folder.join("store"));
        let config = configuration(&folder, &store, &disk, &hub, &enrolled)?;
        fs::write(folder.join(CONFIG), config)?;
        let mut rig = Self {
            recorder,
            hub,
            devices: Vec::new(),
            store,
            authority: reqwest::Certificate::from_pem(authority.as_bytes())?,
            folder,
            program,
            gateway: None,
            port: watch::Sender::new(None),
        };
        let admin = rig.start_gateway(&Line::default()).await?;
        rig.devices = rig.make_tokens(&admin, enrolled).await?;
        rig.stop_gateway().await?;
        Ok(rig)
    }

    /// Starts the gateway, run by another program if there is one, and gives the address of its admin API.
    pub(crate) async fn start_gateway(&mut self, runner: &Line) -> Result<String> {
        let line = self.serve().run_by(runner);
        let mut gateway = Process::start(&line, self.folder.join("gateway.log"))?;
        let listening = gateway.until_printed("\"listening\"").await;
        let listening: Value = serde_json::from_str(&listening.context("the gateway")?)?;
        let port = listening["addresses"].as_str().and_then(|addresses| {
            let (_, port) = addresses.trim_end_matches(']').rsplit_once(':')?;
            port.parse().ok()
        });
        self.gateway = Some(gateway);
        self.recorder.trouble(Trouble::Started);
        self.port
            .send_replace(Some(port.context("it names no port")?));
        let admin = listening["admin"].as_str().context("it has no admin API")?;
        Ok(format!("http://{admin}"))
    }

    /// The command that serves.
    pub(crate) fn serve(&self) -> Line {
        Line::new(&self.program)
            .with(["serve", "--log-format", "json", "--config"])
            .with([self.folder.join(CONFIG)])
    }

    /// Kills the gateway.
    pub(crate) async fn kill_gateway(&mut self) -> Result<()> {
        let gateway = self.gateway.take().context("the gateway runs")?;
        self.port.send_replace(None);
        // Before, so that what a dying process has caused is behind it.
        self.recorder.trouble(Trouble::Killed);
        gateway.kill().await
    }

    /// Stops the gateway in order.
    pub(crate) async fn stop_gateway(&mut self) -> Result<()> {
        let gateway = self.gateway.take().context("the gateway runs")?;
        self.port.send_replace(None);
        let (status, printed) = gateway.terminate().await?;
        if !status.success() {
            bail!("the gateway ended with {status}: {printed}");
        }
        Ok(())
    }

    /// Waits until the gateway ends by itself, and gives what it printed.
    pub(crate) async fn gateway_ended(&mut self, within: Duration) -> Result<(ExitStatus, String)> {
        let gateway = self.gateway.as_mut().context("the gateway runs")?;
        let ended = gateway.ended(within).await?;
        self.gateway = None;
        self.port.send_replace(None);
        Ok(ended)
    }

    /// Whether the gateway runs.
    pub(crate) fn gateway_runs(&mut self) -> Result<bool> {
        self.gateway.as_mut().map_or(Ok(false), Process::is_running)
    }

    /// Runs the program with other arguments, to its end.
    pub(crate) async fn run(&self, arguments: &[OsString]) -> Result<(ExitStatus, String)> {
        let line = Line::new(&self.program).with(arguments);
        process::run(&line, &self.folder.join("commands.log")).await
    }

    /// Where the gateway listens, as long as it does.
    pub(crate) fn port(&self) -> watch::Receiver<Option<u16>> {
        self.port.subscribe()
    }

    /// An HTTPS client that trusts the gateway. Every other device speaks HTTP/1.1 alone.
    pub(crate) fn client(&self, is_http1: bool) -> Result<reqwest::Client> {
        let builder = reqwest::Client::builder()
            .tls_certs_only([self.authority.clone()])
            .no_proxy()
            .timeout(PATIENCE);
        let builder = if is_http1 {
            builder.http1_only()
        } else {
            builder
        };
        Ok(builder.build()?)
    }

    /// The history's file.
    pub(crate) fn history(&self) -> PathBuf {
        self.folder.join("history.jsonl")
    }

    async fn make_tokens(&self, admin: &str, of: Vec<Enrolled>) -> Result<Vec<Credentials>> {
        let admin_token = fs::read_to_string(self.folder.join(ADMIN_TOKEN))?;
        leaks::mark("admin token", admin_token.trim());
        let http = reqwest::Client::builder().no_proxy().build()?;
        let mut devices = Vec::new();
        for Enrolled { id, kind, key } in of {
            let whose = match (kind, id.split_once('/')) {
                (Kind::PassedThrough, _) => {
                    let authorization = own_token(&id, &key)?;
                    devices.push(Credentials {
                        id,
                        kind,
                        authorization,
                    });
                    continue;
                }
                (_, Some((device, module))) => json!({ "device": device, "module": module }),
                (_, None) => json!({ "device": id }),
            };
            let request = http
                .post(format!("{admin}/admin/v1/tokens"))
                .bearer_auth(admin_token.trim())
                .json(&whose);
            let answer = request.send().await?.error_for_status()?;
            let created: Value = answer.json().await?;
            let token = created["token"].as_str().context("no token was made")?;
            leaks::mark(&format!("gateway token of {id}"), token);
            devices.push(Credentials {
                id,
                kind,
                authorization: format!("Bearer {token}"),
            });
        }
        Ok(devices)
    }
}

impl Crowd {
    /// Some devices, and nobody else.
    pub(crate) const fn of_devices(devices: usize) -> Self {
        Self {
            devices,
            modules: 0,
            passed_through: 0,
        }
    }

    /// The devices' names.
    fn ids(self) -> Vec<String> {
        let devices = (0..self.devices).map(|number| format!("dev{number}"));
        let passed_through = (0..self.passed_through).map(|number| format!("own{number}"));
        devices.chain(passed_through).collect()
    }

    /// Everybody, with the keys that the hub has for them; modules are made.
    async fn enroll(self, hub: &Hub) -> Result<Vec<Enrolled>> {
        let mut enrolled = Vec::new();
        for (number, (id, key)) in hub.keys.iter().enumerate() {
            let kind = match (number >= self.devices, number % 2) {
                (true, _) => Kind::PassedThrough,
                (false, 0) => Kind::GatewayKeeps,
                (false, _) => Kind::HubKeeps,
            };
            let (id, key) = (id.clone(), key.clone());
            enrolled.push(Enrolled { id, kind, key });
        }
        for (device, _) in hub.keys.iter().take(self.modules.min(self.devices)) {
            let key = hub.cloud().add_module(device, MODULE).await?;
            let id = format!("{device}/{MODULE}");
            leaks::mark_key(&format!("key of {id}"), &key);
            let kind = Kind::Module;
            enrolled.push(Enrolled { id, kind, key });
        }
        Ok(enrolled)
    }
}

/// A token that a device signs itself, good for ten years: some days move the clock.
fn own_token(id: &str, key: &str) -> Result<String> {
    let ten_years = Duration::from_secs(10 * 365 * 24 * 3600);
    let token = Key::from_base64(key)?.sign(
        &format!("{}/devices/{id}", crate::hub::HUB_NAME),
        None,
        (SystemTime::now() + ten_years).into(),
    );
    let signature = token.split("&sig=").nth(1);
    let signature = signature.and_then(|rest| rest.split('&').next());
    leaks::mark(
        &format!("signature of {id}"),
        signature.context("a token has a signature")?,
    );
    Ok(token)
}

fn configuration(
    folder: &Path,
    store: &Path,
    disk: &str,
    hub: &Hub,
    enrolled: &[Enrolled],
) -> Result<String> {
    let certificate = folder.join("gateway.pem");
    let mut text = format!(
        "[front]\nlisten = [\"127.0.0.1:0\"]\nadmin_listen = \"127.0.0.1:0\"\nnames = [\"localhost\"]\n\
         certificate_file = {certificate:?}\nkey_file = {certificate:?}\n\
         [admin]\ntoken_file = {admin:?}\n\
         [store]\nkeys = 1000000\nkeys_in_all = 10000000\noutbox_entries = 100000\noutbox_bytes = 268435456\n\
         outbox_bytes_in_all = 1073741824\n\
         [disk]\nfolder = {store:?}\n{disk}\n\
         [upstream]\nbackoff_limit = \"5s\"\n\
         [[upstream.hubs]]\nname = \"{name}\"\naddress = \"{address}\"\nhttps_address = \"{https}\"\nca_file = {ca:?}\n\
         connects_per_second = 1000\n",
        admin = folder.join(ADMIN_TOKEN),
        name = crate::hub::HUB_NAME,
        address = hub.mqtt,
        https = hub.https,
        ca = hub.authority_file,
    );
    for Enrolled { id, kind, key } in enrolled {
        let (device, module) = id.split_once('/').unwrap_or((id, ""));
        writeln!(text, "[[upstream.devices]]\nid = \"{device}\"")?;
        match kind {
            Kind::GatewayKeeps => writeln!(text, "key.text = \"{key}\"\ncustody = \"gateway\"")?,
            Kind::HubKeeps => writeln!(text, "key.text = \"{key}\"\ncustody = \"hub\"")?,
            Kind::Module => writeln!(text, "key.text = \"{key}\"\nmodule = \"{module}\"")?,
            Kind::PassedThrough => writeln!(text, "credential = \"pass-through\"")?,
        }
    }
    Ok(text)
}

/// Where a line of the hub's greeting names an address behind these words.
pub(crate) fn address_behind(printed: &str, words: &str) -> Result<String> {
    let line = printed.lines().find(|line| line.contains(words));
    let line = line.with_context(|| format!("nothing says {words:?} in {printed}"))?;
    let (_, rest) = line.split_once(words).context("the line has the words")?;
    let word = rest.split_whitespace().next().context("no address")?;
    Ok(word.trim_end_matches(',').to_owned())
}

/// Names and keys of a file of connection strings.
pub(crate) fn keys_of(strings: &str) -> BTreeMap<String, String> {
    strings.lines().filter_map(key_of).collect()
}

fn key_of(line: &str) -> Option<(String, String)> {
    let (rest, key) = line.split_once("SharedAccessKey=")?;
    let (_, rest) = rest.split_once("DeviceId=")?;
    let (id, _) = rest.split_once(';')?;
    Some((id.to_owned(), key.trim().to_owned()))
}

/// What each module is called.
const MODULE: &str = "camera";
const CONFIG: &str = "tombolo.toml";
const ADMIN_TOKEN: &str = "admin.token";
/// How long a device waits for an answer.
const PATIENCE: Duration = Duration::from_secs(60);
