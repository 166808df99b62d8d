//! Start and stop.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use secrecy::SecretString;
use tokio::sync::Semaphore;

use super::{
    http,
    hubs::Hubs,
    service::{self, CloseReason, ConnectionId, Group, GroupId, IdScope, Output, Service},
};
use crate::{
    HubHandle, Limits, ShutdownError, ShutdownTimeout, StartError, Tls,
    emulator::bind,
    http::Access,
    hub::{Now, Random},
    life::Life,
    listen::{self, Listener},
    mqtt,
    state::{self, Memory, StateFile},
    tls,
    wiring::{Core, Order, Wiring},
    x509::Peer,
};

/// What a provisioning service is started with.
pub struct Config {
    /// The service: its name, its scope, its rules. The hubs that it names are replaced by `hubs`.
    pub service: service::Config,
    /// The hubs to assign devices to.
    pub hubs: Vec<HubHandle>,
    /// Enrollment groups to begin with. One that the state file knows stays as it is there.
    pub groups: Vec<(GroupId, Group)>,
    /// The file that keeps enrollments and registrations from one start to the next; without it they are in memory only.
    pub state: Option<PathBuf>,
    /// Where devices connect over MQTT. Port 0 takes a free one; the real service has 8883.
    pub mqtt: SocketAddr,
    /// Where the REST API is, and MQTT over WebSocket. Port 0 takes a free one; the real service has 443.
    pub https: SocketAddr,
    /// Certificate and key of both listeners.
    pub tls: Tls,
    /// Names and addresses by which the REST API may be asked for, without port, beside the service's name.
    pub allowed_hosts: Vec<String>,
    /// What `Authorization: Bearer` may say in place of a shared access signature of an operator.
    pub token: SecretString,
    /// Whether it may.
    pub token_opens_service_api: bool,
    /// Bounds of the listeners.
    pub limits: Limits,
}

/// A running provisioning service.
///
/// Dropped without [`Provisioning::shutdown`], it stops as soon as its tasks see it, without waiting for them.
pub struct Provisioning {
    wiring: Arc<Wiring<Served>>,
    life: Life,
    state: Option<Arc<StateFile>>,
    id_scope: IdScope,
    mqtt: SocketAddr,
    https: SocketAddr,
}

/// The service, and the hubs that it assigns devices to.
pub(super) struct Served {
    pub(super) service: Service,
    hubs: Hubs,
}

impl Config {
    /// A service on free loopback ports, with the defaults for the rest.
    #[must_use]
    pub fn new(
        service: service::Config,
        hubs: Vec<HubHandle>,
        tls: Tls,
        token: SecretString,
    ) -> Self {
        Self {
            service,
            hubs,
            groups: Vec::new(),
            state: None,
            mqtt: SocketAddr::from(([127, 0, 0, 1], 0)),
            https: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls,
            allowed_hosts: ["localhost", "127.0.0.1", "[::1]"]
                .map(str::to_owned)
                .into(),
            token,
            token_opens_service_api: true,
            limits: Limits::default(),
        }
    }
}

impl Provisioning {
    /// Listens on both addresses and runs until [`Provisioning::shutdown`].
    ///
    /// # Errors
    ///
    /// An address that is taken, a certificate or a state file that cannot be used, or a group that breaks a rule.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let mqtt_tls = tls::acceptor(&config.tls, &[])?;
        let https_tls = tls::acceptor(&config.tls, &[b"h2", b"http/1.1"])?;
        let (mqtt, mqtt_address) = bind("MQTT", config.mqtt).await?;
        let (https, https_address) = bind("HTTPS", config.https).await?;
        let (hubs, limits) = (Hubs::new(config.hubs), config.limits);
        let rules = service::Config {
            hubs: hubs.names(),
            ..config.service
        };
        let (name, id_scope) = (rules.name.clone(), rules.id_scope.clone());
        let mut service = Service::new(rules, Random::system());
        let state = config.state.map(StateFile::at).map(Arc::new);
        if let Some(file) = &state {
            file.load::<Wiring<Served>, _>(|json| service.recall(json))?;
        }
        for (id, group) in config.groups {
            if service.group(&id).is_err() {
                service
                    .enroll_group(&id, group, Now::read())
                    .map_err(|source| StartError::Group { group: id, source })?;
            }
        }
        let life = Life::default();
        let wiring = Arc::new(Wiring::new(
            Served { service, hubs },
            limits.unwritten_bytes,
        ));
        if let Some(file) = &state {
            file.save(&*wiring)?;
            let (file, wiring) = (Arc::clone(file), Arc::clone(&wiring));
            life.spawn(state::keep(file, wiring, life.stop.clone()));
        }
        let server = mqtt::Server {
            wiring: Arc::clone(&wiring),
            slots: Arc::new(Semaphore::new(limits.mqtt_connections)),
            write: limits.write,
            stop: life.stop.clone(),
        };
        let access = Access::new(
            &name,
            config.allowed_hosts,
            config.token,
            config.token_opens_service_api,
        );
        let router = http::router(server.clone(), access, limits);
        life.spawn(Arc::clone(&wiring).run_timers(life.stop.clone()));
        let listener = Listener {
            socket: mqtt,
            tls: mqtt_tls,
            slots: Arc::clone(&server.slots),
            handshake: limits.handshake,
            moves: None,
        };
        life.spawn(listen::run(listener, life.clone(), move |accepted| {
            let server = server.until(accepted.stop);
            let (stream, peer, slot) = (accepted.stream, accepted.peer, accepted.slot);
            async move { server.serve(stream, peer, slot).await }
        }));
        let listener = Listener {
            socket: https,
            tls: https_tls,
            slots: Arc::new(Semaphore::new(limits.https_connections)),
            handshake: limits.handshake,
            moves: None,
        };
        life.spawn(listen::run(listener, life.clone(), move |accepted| {
            crate::http::serve(accepted, router.clone(), limits)
        }));
        Ok(Self {
            wiring,
            life,
            state,
            id_scope,
            mqtt: mqtt_address,
            https: https_address,
        })
    }

    /// Closes all connections, waits until they are gone, and writes what is to be kept.
    ///
    /// # Errors
    ///
    /// Some were not gone at the end of `time`, or the state could not be written.
    pub async fn shutdown(self, time: Duration) -> Result<(), ShutdownError> {
        let ended = self.life.end(time).await.map_err(|_| ShutdownTimeout);
        if let Some(file) = &self.state {
            file.save(&*self.wiring)?;
        }
        Ok(ended?)
    }

    /// Where devices connect over MQTT, with the port that was taken.
    #[must_use]
    pub const fn mqtt_address(&self) -> SocketAddr {
        self.mqtt
    }

    /// Where the REST API is, with the port that was taken.
    #[must_use]
    pub const fn https_address(&self) -> SocketAddr {
        self.https
    }

    /// What devices name it by.
    #[must_use]
    pub const fn id_scope(&self) -> &IdScope {
        &self.id_scope
    }

    /// Works on the service itself, with the time of now: for tests and for who runs it in-process. `act` must be short: every
    /// connection waits for it.
    pub fn with_service<R>(&self, act: impl FnOnce(&mut Service, Now) -> R) -> R {
        self.wiring
            .with(|served, now| act(&mut served.service, now))
    }

    /// `HostName=...;SharedAccessKeyName=...;SharedAccessKey=...`, if there is such a policy.
    #[must_use]
    pub fn connection_string(&self, policy: &str) -> Option<String> {
        self.with_service(|service, _| {
            let found = service.policies().iter().find(|p| p.name == policy)?;
            Some(format!(
                "HostName={};SharedAccessKeyName={policy};SharedAccessKey={}",
                service.name(),
                found.primary.to_base64()
            ))
        })
    }
}

impl Drop for Provisioning {
    fn drop(&mut self) {
        self.life.stop.cancel();
    }
}

impl Memory for Wiring<Served> {
    const FORMAT: &'static str = "tombolo-emulator-provisioning";
    const VERSION: u32 = Service::VERSION;

    fn revision(&self) -> u64 {
        self.with(|served, _| served.service.revision())
    }

    fn remembered(&self) -> Vec<u8> {
        self.with(|served, _| served.service.remembered())
    }
}

impl Core for Served {
    type Connection = ConnectionId;
    type Reason = CloseReason;

    fn time(&self, machine: Now) -> Now {
        machine
    }

    fn accept(&mut self, peer: Peer, now: Now) -> ConnectionId {
        self.service.accept(peer, now)
    }

    fn handle_input(&mut self, id: ConnectionId, bytes: &[u8], now: Now) {
        self.service.handle_input(id, bytes, now);
    }

    fn wants_input(&self, _: ConnectionId) -> bool {
        true
    }

    fn handle_closed(&mut self, id: ConnectionId, _: Now) {
        self.service.handle_closed(id);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.service.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.service.poll_timeout()
    }

    /// Devices are brought to their hubs on the way. The service's lock is held meanwhile and a hub's is taken within it;
    /// never the other way round, for hubs know of no provisioning service.
    fn poll_order(&mut self) -> Option<Order<ConnectionId, CloseReason>> {
        loop {
            match self.service.poll_output()? {
                Output::Transmit { connection, bytes } => {
                    return Some(Order::Transmit { connection, bytes });
                }
                Output::Close { connection, reason } => {
                    return Some(Order::Close { connection, reason });
                }
                Output::Assign(assignment) => {
                    let result = self.hubs.settle(&assignment);
                    self.service
                        .handle_assigned(&assignment, result, Now::read());
                }
            }
        }
    }
}
