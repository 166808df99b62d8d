//! Bodies of file upload, exactly as IoT Hub has them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Asks for a place to upload a file to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UploadRequest {
    /// The blob's name, below the device's id.
    pub blob_name: String,
}

/// Where to upload a file: `PUT https://{hostName}/{containerName}/{blobName}{sasToken}`, past the gateway.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Upload {
    /// Names the upload when it is reported.
    pub correlation_id: String,
    /// Host name of the storage account.
    pub host_name: String,
    /// Container in the account.
    pub container_name: String,
    /// Blob in the container: `{device}/{name}`.
    pub blob_name: String,
    /// Query that allows the upload; starts with `?`.
    pub sas_token: String,
}

/// Reports how an upload went.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UploadReport {
    /// The upload's name; some of Azure's SDKs put it into the path instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// Whether the file is there.
    pub is_success: bool,
    /// The storage's status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_code: Option<i32>,
    /// The storage's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_description: Option<String>,
}
