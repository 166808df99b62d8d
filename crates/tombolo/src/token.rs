//! `tombolo token`: asks the admin API of a gateway that runs.
//!
//! A fresh token goes to standard output and all else to standard error, so that `TOKEN=$(tombolo token create ...)` works.

use std::io::Write as _;

use anyhow::{Context as _, Result, anyhow, bail};
use iothub::Timestamp;
use reqwest::{Client, Method, StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cli::{AdminArgs, DeviceArgs, TokenArgs, TokenCommand};
use crate::http_client;

/// Makes, lists or revokes tokens.
///
/// # Errors
///
/// When no gateway answers, or it refuses.
pub(crate) async fn run(args: TokenArgs) -> Result<()> {
    let admin = Admin::new(args.admin)?;
    match args.command {
        TokenCommand::Create { device, days } => create(&admin, &device, days).await,
        TokenCommand::List { device } => list(&admin, &device).await,
        TokenCommand::Revoke { device, id } => revoke(&admin, &device, &id).await,
    }
}

async fn create(admin: &Admin, of: &DeviceArgs, days: Option<u32>) -> Result<()> {
    let body = json!({
        "hub": of.hub,
        "device": of.device,
        "lifetime_s": days.map(|days| u64::from(days) * SECONDS_OF_A_DAY),
    });
    let created = admin.ask(Method::POST, admin.tokens(None)?, Some(body));
    let Created { token, shown } = read(&created.await?)?;
    writeln!(std::io::stdout(), "{token}")?;
    writeln!(
        std::io::stderr(),
        "This is shown once. The device sends it as \"Authorization: Bearer ...\".\n{shown}, id {}",
        shown.token_id
    )?;
    Ok(())
}

async fn list(admin: &Admin, of: &DeviceArgs) -> Result<()> {
    let url = of.in_query(admin.tokens(None)?);
    let Listed { tokens } = read(&admin.ask(Method::GET, url, None).await?)?;
    if tokens.is_empty() {
        writeln!(std::io::stderr(), "{} has no token", of.device)?;
    }
    for shown in tokens {
        writeln!(std::io::stdout(), "{}  {shown}", shown.token_id)?;
    }
    Ok(())
}

async fn revoke(admin: &Admin, of: &DeviceArgs, id: &str) -> Result<()> {
    let url = of.in_query(admin.tokens(Some(id))?);
    admin.ask(Method::DELETE, url, None).await?;
    writeln!(std::io::stderr(), "revoked")?;
    Ok(())
}

/// The admin API of one gateway.
struct Admin {
    url: Url,
    token: SecretString,
    client: Client,
}

impl Admin {
    fn new(args: AdminArgs) -> Result<Self> {
        let AdminArgs {
            admin,
            admin_token_file: file,
        } = args;
        let url = Url::parse(&admin).ok().filter(|url| url.scheme() == "http");
        let url = url.with_context(|| {
            format!("{admin} is no address of an admin API: write --admin http://127.0.0.1:PORT (TOMBOLO_ADMIN)")
        })?;
        let token = std::fs::read_to_string(&file).with_context(|| {
            format!(
                "could not read the token of the admin API in {}: --admin-token-file FILE (TOMBOLO_ADMIN_TOKEN_FILE) \
                 names another file",
                file.display()
            )
        })?;
        Ok(Self {
            url,
            token: token.trim().into(),
            client: http_client::build(http_client::trusting([]))?,
        })
    }

    fn tokens(&self, id: Option<&str>) -> Result<Url> {
        let mut url = self.url.clone();
        url.path_segments_mut()
            .map_err(|()| anyhow!("{} can not have a path", self.url))?
            .pop_if_empty()
            .extend(["admin", "v1", "tokens"])
            .extend(id);
        Ok(url)
    }

    /// The body of an answer that is a success.
    async fn ask(&self, method: Method, url: Url, body: Option<Value>) -> Result<Vec<u8>> {
        let mut request = self
            .client
            .request(method, url)
            .bearer_auth(self.token.expose_secret());
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.with_context(|| {
            format!(
                "no gateway answers at {}: is it running? --admin URL (TOMBOLO_ADMIN) names another address",
                self.url
            )
        })?;
        let status = answer.status();
        let body = answer.bytes().await.context("the answer was cut off")?;
        if status.is_success() {
            return Ok(body.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            bail!(
                "the gateway does not take this token for its admin API: --admin-token-file FILE \
                 (TOMBOLO_ADMIN_TOKEN_FILE) names the file with the right one"
            );
        }
        bail!("the gateway refuses: {}", http_client::problem(&body))
    }
}

impl DeviceArgs {
    fn in_query(&self, mut url: Url) -> Url {
        let mut query = url.query_pairs_mut();
        query.append_pair("device", self.device.as_str());
        if let Some(hub) = &self.hub {
            query.append_pair("hub", hub.as_str());
        }
        drop(query);
        url
    }
}

#[derive(Deserialize)]
struct Created {
    token: String,
    #[serde(flatten)]
    shown: Shown,
}

#[derive(Deserialize)]
struct Listed {
    tokens: Vec<Shown>,
}

#[derive(Deserialize)]
struct Shown {
    token_id: String,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "made {}, ", self.created_at)?;
        match self.expires_at {
            Some(end) => write!(f, "ends {end}"),
            None => f.write_str("good until it is revoked"),
        }
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).context("the answer is not that of an admin API of this version")
}

const SECONDS_OF_A_DAY: u64 = 24 * 60 * 60;
