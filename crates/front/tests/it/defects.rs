//! What a device hears when the gateway itself has a fault.

use std::sync::Arc;

use async_trait::async_trait;
use iothub::Identity;
use reqwest::{Method, StatusCode};
use store::{
    DeviceRecord, Page, Partition, Registry, Store, StoreError, TokenHash, TokenId, TokenRecord,
};

use crate::rig::{Rig, assert_status, problem, send};

/// A registry that fails when it is asked for some tokens.
struct Faulty(Arc<dyn Registry>);

const PANICS: &str = "tmb_panics";
const UNAVAILABLE: &str = "tmb_unavailable";
const UNKNOWN_OUTCOME: &str = "tmb_unknown-outcome";

#[async_trait]
impl Registry for Faulty {
    async fn device(&self, identity: &Identity) -> Result<Option<DeviceRecord>, StoreError> {
        self.0.device(identity).await
    }

    async fn put_device(&self, record: DeviceRecord) -> Result<(), StoreError> {
        self.0.put_device(record).await
    }

    async fn devices(
        &self,
        partition: Partition,
        after: Option<&str>,
    ) -> Result<Page<DeviceRecord>, StoreError> {
        self.0.devices(partition, after).await
    }

    async fn put_token(&self, record: TokenRecord) -> Result<(), StoreError> {
        self.0.put_token(record).await
    }

    async fn token(&self, hash: &TokenHash) -> Result<Option<TokenRecord>, StoreError> {
        if *hash == TokenHash::of(PANICS) {
            panic!("a defect");
        }
        if *hash == TokenHash::of(UNAVAILABLE) {
            return Err(StoreError::Unavailable);
        }
        if *hash == TokenHash::of(UNKNOWN_OUTCOME) {
            return Err(StoreError::UnknownOutcome);
        }
        self.0.token(hash).await
    }

    async fn revoke_token(&self, identity: &Identity, id: &TokenId) -> Result<bool, StoreError> {
        self.0.revoke_token(identity, id).await
    }

    async fn tokens(&self, identity: &Identity) -> Result<Vec<TokenRecord>, StoreError> {
        self.0.tokens(identity).await
    }
}

async fn rig() -> Rig {
    let memory = store::memory::open(store::memory::Config::default()).unwrap();
    let registry = Arc::new(Faulty(memory.registry.clone()));
    Rig::over(Store { registry, ..memory }, |_| {}).await
}

#[tokio::test]
async fn a_panic_is_the_answer_of_one_request_only() {
    let rig = rig().await;
    for _ in 0..3 {
        let request = rig
            .anonymous(Method::GET, "/devices/dev1/twin")
            .bearer_auth(PANICS);
        let detail = problem(send(request).await, 500, "internal").await;
        assert!(!detail.contains("defect"), "{detail}");
    }
    assert_status(
        &send(rig.anonymous(Method::GET, "/openapi.json")).await,
        StatusCode::OK,
    );
}

#[tokio::test]
async fn not_finding_out_is_not_a_no() {
    let rig = rig().await;
    for (token, status, code) in [
        (UNAVAILABLE, 503, "overloaded"),
        (UNKNOWN_OUTCOME, 504, "hub_timeout"),
    ] {
        let request = rig
            .anonymous(Method::GET, "/devices/dev1/twin")
            .bearer_auth(token);
        problem(send(request).await, status, code).await;
    }
}
