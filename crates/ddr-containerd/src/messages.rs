//! The messages of containerd's API that are used, with the fields that are used.
//!
//! Names and field numbers are those of containerd's `api/services/*/v1/*.proto`, which are stable within v1.
//! Fields that are not here are skipped when a message is read.

use std::collections::BTreeMap;

use bytes::Bytes;

/// `containerd.services.namespaces.v1.Namespaces/List`.
pub(crate) const NAMESPACES: &str = "/containerd.services.namespaces.v1.Namespaces/List";
/// `containerd.services.content.v1.Content/List`, which streams.
pub(crate) const LIST: &str = "/containerd.services.content.v1.Content/List";
/// `containerd.services.content.v1.Content/Read`, which streams.
pub(crate) const READ: &str = "/containerd.services.content.v1.Content/Read";
/// `containerd.services.images.v1.Images/List`.
pub(crate) const IMAGES: &str = "/containerd.services.images.v1.Images/List";
/// `containerd.services.introspection.v1.Introspection/Plugins`.
pub(crate) const PLUGINS: &str = "/containerd.services.introspection.v1.Introspection/Plugins";
/// `containerd.services.events.v1.Events/Subscribe`, which streams without end.
pub(crate) const SUBSCRIBE: &str = "/containerd.services.events.v1.Events/Subscribe";

/// A question that is filters only: `PluginsRequest`, `ListContentRequest`, `ListImagesRequest`,
/// `SubscribeRequest`, and with none of them `ListNamespacesRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Filters {
    /// What fits one of them is meant; with none of them, everything.
    #[prost(string, repeated, tag = "1")]
    pub filters: Vec<String>,
}

/// `ListNamespacesResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Namespaces {
    #[prost(message, repeated, tag = "1")]
    pub namespaces: Vec<Namespace>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Namespace {
    #[prost(string, tag = "1")]
    pub name: String,
}

/// `ListContentResponse`. Its entries are read one by one, so that a message of empty entries takes no more
/// memory than its bytes and one entry.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Contents {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub info: Vec<Bytes>,
}

/// `Info` of content.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Info {
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(int64, tag = "2")]
    pub size: i64,
    #[prost(btree_map = "string, string", tag = "5")]
    pub labels: BTreeMap<String, String>,
}

/// `ReadContentRequest`. A size of zero would mean everything.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReadRequest {
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(int64, tag = "2")]
    pub offset: i64,
    #[prost(int64, tag = "3")]
    pub size: i64,
}

/// `ReadContentResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReadPart {
    #[prost(int64, tag = "1")]
    pub offset: i64,
    #[prost(bytes = "bytes", tag = "2")]
    pub data: Bytes,
}

/// `ListImagesResponse`, entry by entry as [`Contents`].
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Images {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub images: Vec<Bytes>,
}

/// `Image`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ImageInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "3")]
    pub target: Option<Target>,
}

/// `Descriptor` of what an image points to.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Target {
    #[prost(string, tag = "2")]
    pub digest: String,
}

/// `PluginsResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Plugins {
    #[prost(message, repeated, tag = "1")]
    pub plugins: Vec<Plugin>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Plugin {
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(string, tag = "2")]
    pub id: String,
    #[prost(btree_map = "string, string", tag = "5")]
    pub exports: BTreeMap<String, String>,
}

/// `Envelope` of an event.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Envelope {
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(string, tag = "3")]
    pub topic: String,
}
