//! A registry on a free port, and the things that most tests push to it.

use std::net::SocketAddr;

use ddr_oci::digest::Digest;
use ddr_oci::media_type::{OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST};
use ddr_registry::Limits;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::{Answer, request};
use crate::node::TestNode;

/// A running registry; it ends with the test.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
    node: TestNode,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(Limits::default()).await
    }

    pub(crate) async fn start_with(limits: Limits) -> Self {
        Self::around(TestNode::start().await, limits).await
    }

    /// A registry in front of `node`.
    pub(crate) async fn around(node: TestNode, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = ddr_registry::serve(listener, node.node.clone(), limits, stopped);
        Self { addr, stop: Some(stop), served: tokio::spawn(served), node }
    }

    /// The memory for bytes on their way.
    pub(crate) fn buffers(&self) -> ddr_node::Budget {
        self.node.node.buffers().clone()
    }

    /// Asks the server to end.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(self) {
        self.served.await.unwrap();
    }

    /// One request on a connection of its own; `line` is method and target.
    pub(crate) async fn send(&self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        request(self.addr, line, headers, body).await
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.send(&format!("GET {target}"), &[], b"").await
    }

    pub(crate) async fn head(&self, target: &str) -> Answer {
        self.send(&format!("HEAD {target}"), &[], b"").await
    }

    pub(crate) async fn post(&self, target: &str, body: &[u8]) -> Answer {
        self.send(&format!("POST {target}"), &[], body).await
    }

    pub(crate) async fn put(&self, target: &str, body: &[u8]) -> Answer {
        self.send(&format!("PUT {target}"), &[], body).await
    }

    pub(crate) async fn delete(&self, target: &str) -> Answer {
        self.send(&format!("DELETE {target}"), &[], b"").await
    }

    /// A chunk with its place.
    pub(crate) async fn patch(&self, location: &str, range: &str, body: &[u8]) -> Answer {
        self.send(&format!("PATCH {location}"), &[("content-range", range)], body).await
    }

    /// Opens an upload session and answers its location.
    pub(crate) async fn begin(&self, name: &str) -> String {
        let answer = self.post(&format!("/v2/{name}/blobs/uploads/"), b"").await.expect(202);
        answer.header("location").unwrap().to_owned()
    }

    pub(crate) async fn push_blob(&self, name: &str, content: &[u8]) -> Digest {
        let digest = Digest::sha256(content);
        let target = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        self.post(&target, content).await.expect(201);
        digest
    }

    /// An image manifest whose two blobs are in the repository `name`.
    pub(crate) async fn image(&self, name: &str, content: &str) -> Image {
        let config = json!({ "test": content }).to_string();
        let layer = content.repeat(10);
        let config_digest = self.push_blob(name, config.as_bytes()).await;
        let layer_digest = self.push_blob(name, layer.as_bytes()).await;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": { "mediaType": OCI_CONFIG, "digest": config_digest, "size": config.len() },
            "layers": [{ "mediaType": OCI_LAYER, "digest": layer_digest, "size": layer.len() }],
            "x-unknown": true,
        });
        Image { bytes: manifest.to_string().into_bytes(), media_type: OCI_MANIFEST }
    }

    pub(crate) async fn put_manifest(&self, name: &str, reference: &str, image: &Image) -> Answer {
        let line = format!("PUT /v2/{name}/manifests/{reference}");
        self.send(&line, &[("content-type", image.media_type)], &image.bytes).await
    }
}

/// A manifest and its type.
pub(crate) struct Image {
    pub(crate) bytes: Vec<u8>,
    pub(crate) media_type: &'static str,
}

impl Image {
    pub(crate) fn digest(&self) -> Digest {
        Digest::sha256(&self.bytes)
    }

    pub(crate) fn index(of: &[&Self]) -> Self {
        let manifests = of.iter().map(|image| {
            json!({
                "mediaType": image.media_type, "digest": image.digest(), "size": image.bytes.len()
            })
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": manifests.collect::<Vec<_>>(),
        });
        Self { bytes: index.to_string().into_bytes(), media_type: OCI_INDEX }
    }
}

/// Bytes without a pattern that a mistake could hide in; the same every time.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    Noise(len as u64).take(len).collect()
}

/// SplitMix64 (Steele, Lea, Flood 2014), a byte at a time.
pub(crate) struct Noise(pub(crate) u64);

impl Iterator for Noise {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some((z >> 56) as u8)
    }
}
