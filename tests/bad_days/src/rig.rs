//! The real program as hub and as gateway, each a process of its own, with a folder for both.

mod certificates;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    history::{Recorder, Trouble},
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
    /// How many devices; every other one has its messages in the hub's custody.
    pub(crate) devices: usize,
    /// Lines for the section `[disk]` of the configuration beside the folder's.
    pub(crate) disk: String,
    /// The store's folder, if it is not in the rig's.
    pub(crate) store: Option<PathBuf>,
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
    /// Its name.
    pub(crate) id: String,
    /// Its token.
    pub(crate) token: String,
}

impl Rig {
    /// Starts a hub, and a gateway for as long as it takes to make tokens.
    pub(crate) async fn start(setup: Setup) -> Result<Self> {
        let Setup {
            program,
            folder,
            devices,
            disk,
            store,
        } = setup;
        let recorder = Recorder::create(&folder.join("history.jsonl"))?;
        let ids: Vec<_> = (0..devices).map(|number| format!("dev{number}")).collect();
        let hub = Hub::start(&program, &folder, &ids, recorder.clone()).await?;
        let authority = certificates::make(&folder)?;
        let store = store.unwrap_or_else(|| folder.join("store"));
        let config = configuration(&folder, &store, &disk, &hub)?;
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
        rig.devices = rig.make_tokens(&admin, ids).await?;
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

    async fn make_tokens(&self, admin: &str, ids: Vec<String>) -> Result<Vec<Credentials>> {
        let admin_token = fs::read_to_string(self.folder.join(ADMIN_TOKEN))?;
        leaks::mark("admin token", admin_token.trim());
        let http = reqwest::Client::builder().no_proxy().build()?;
        let mut devices = Vec::new();
        for id in ids {
            let request = http
                .post(format!("{admin}/admin/v1/tokens"))
                .bearer_auth(admin_token.trim())
                .json(&json!({ "device": id }));
            let answer = request.send().await?.error_for_status()?;
            let created: Value = answer.json().await?;
            let token = created["token"].as_str().context("no token was made")?;
            leaks::mark(&format!("gateway token of {id}"), token);
            devices.push(Credentials {
                id,
                token: token.to_owned(),
            });
        }
        Ok(devices)
    }
}

fn configuration(folder: &Path, store: &Path, disk: &str, hub: &Hub) -> Result<String> {
    let certificate = folder.join("gateway.pem");
    let mut text = format!(
        "[front]\nlisten = [\"127.0.0.1:0\"]\nadmin_listen = \"127.0.0.1:0\"\nnames = [\"localhost\"]\n\
         certificate_file = {certificate:?}\nkey_file = {certificate:?}\n\
         [admin]\ntoken_file = {admin:?}\n\
         [store]\nkeys = 1000000\nkeys_in_all = 10000000\noutbox_entries = 100000\noutbox_bytes = 268435456\n\
         outbox_bytes_in_all = 1073741824\n\
         [disk]\nfolder = {store:?}\n{disk}\n\
         [upstream]\nbackoff_limit = \"5s\"\n\
         [[upstream.hubs]]\nname = \"{name}\"\naddress = \"{address}\"\nca_file = {ca:?}\nconnects_per_second = 1000\n",
        admin = folder.join(ADMIN_TOKEN),
        name = crate::hub::HUB_NAME,
        address = hub.mqtt,
        ca = hub.authority_file,
    );
    for (number, (id, key)) in hub.keys.iter().enumerate() {
        let custody = if number % 2 == 1 { "hub" } else { "gateway" };
        write!(
            text,
            "[[upstream.devices]]\nid = \"{id}\"\nkey.text = \"{key}\"\ncustody = \"{custody}\"\n"
        )?;
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

const CONFIG: &str = "tombolo.toml";
const ADMIN_TOKEN: &str = "admin.token";
/// How long a device waits for an answer.
const PATIENCE: Duration = Duration::from_secs(60);
