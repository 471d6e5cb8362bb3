//! Peers that die, lie and vanish in the middle of a blob.

use futures_util::StreamExt;

use ddr_node::{Node, PutManifestError, ReadError};
use ddr_oci::media_type;

use crate::bed::{
    Bed, Machine, announced, by_tag, content, drain, eventually, image, pull, push_blob,
    repository, within,
};

/// Bytes that a holder sends before it holds its breath: more than is held back.
const PART: usize = 700_000;

#[tokio::test(flavor = "multi_thread")]
async fn another_holder_goes_on() {
    let bed = Bed::new();
    let nodes = bed.swarm(3).await;
    let name = repository("relay");
    let bytes = content(1, 4_000_000);
    let mut digest = None;
    for (_, node) in &nodes[..2] {
        digest = Some(push_blob(node, &name, &bytes).await);
    }
    let digest = digest.expect("pushed");
    announced(&nodes[2].1, &digest, 2).await;
    nodes[..2].iter().for_each(|(machine, _)| machine.gate.close_after(PART));

    let blob = within(nodes[2].1.open_blob(&name, &digest)).await.expect("read").expect("there");
    let reading = tokio::spawn(async move { drain(&blob).await });
    let first = within(async {
        tokio::select! {
            () = nodes[0].0.gate.reached() => 0,
            () = nodes[1].0.gate.reached() => 1,
        }
    })
    .await;
    nodes[1 - first].0.gate.open();
    bed.network.kill(nodes[first].0.addr);

    let (got, error) = within(reading).await.expect("no panic");
    assert!(error.is_none(), "{error:?}");
    assert!(got == bytes, "the same bytes");
    let status = nodes[2].1.status().await;
    let (fetched, most) = (status.traffic.fetched_bytes, (bytes.len() + PART) as u64);
    assert!(
        fetched <= most,
        "only pieces that broke off, and the last ones, came twice: {fetched}"
    );
    assert_eq!(status.sources.len(), 2);
    assert!(status.sources.iter().all(|source| source.bytes > 0 && source.strikes == 0));
    assert!(pull(&nodes[2].1, &name, &digest).await == bytes, "and it is stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_only_holder_dies_the_response_ends_short() {
    let bed = Bed::new();
    let nodes = bed.swarm(2).await;
    let (holder, reader) = (&nodes[0], &nodes[1]);
    let name = repository("cut");
    let bytes = content(2, 3_000_000);
    let digest = push_blob(&holder.1, &name, &bytes).await;
    announced(&reader.1, &digest, 1).await;
    holder.0.gate.close_after(PART);
    let blob = within(reader.1.open_blob(&name, &digest)).await.expect("read").expect("there");
    let reading = tokio::spawn(async move { drain(&blob).await });
    within(holder.0.gate.reached()).await;
    bed.network.kill(holder.0.addr);

    let (got, error) = within(reading).await.expect("no panic");
    assert!(error.is_some(), "an error, not an end");
    assert!(got.len() < bytes.len() && bytes.starts_with(&got), "short, and right so far");
    eventually("nothing is left of it", async || {
        reader.1.status().await.fetches_running == 0 && reader.0.fetch_files() == 0
    })
    .await;
    assert_eq!(reader.1.status().await.blobs, 0);
    let again = within(reader.1.open_blob(&name, &digest)).await;
    assert!(!matches!(again, Ok(Some(_))), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_never_completes_a_blob_and_is_struck() {
    let bed = Bed::new();
    let nodes = bed.swarm(2).await;
    let (liar, reader) = (&nodes[0], &nodes[1]);
    let name = repository("lies");
    for (seed, len) in [(3, 2_000_000), (4, 5_000)] {
        let bytes = content(seed, len);
        let digest = push_blob(&liar.1, &name, &bytes).await;
        announced(&reader.1, &digest, 1).await;
        liar.0.corrupt(&digest);
        match within(reader.1.open_blob(&name, &digest)).await {
            Ok(Some(blob)) => {
                let (got, error) = drain(&blob).await;
                assert!(error.is_some());
                let hidden = 64 * 1024;
                assert!(got.len() <= len - hidden, "the end is held back: {} of {len}", got.len());
            }
            Ok(None) => panic!("{len}: it is not absent"),
            Err(error) => println!("{len}: {error}"),
        }
        let status = reader.1.status().await;
        assert_eq!(status.blobs, 0, "{len}: nothing is stored");
        assert_eq!(reader.0.fetch_files(), 0);
        if seed == 3 {
            assert_eq!(status.sources[0].strikes, 1);
            assert!(reader.1.peers().await[0].avoided);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_sees_a_wrong_byte_or_the_end_of_a_lie() {
    let bed = Bed::new();
    let nodes = bed.swarm(2).await;
    let (liar, reader) = (&nodes[0], &nodes[1]);
    let name = repository("end");
    let (len, hidden) = (2_000_000_usize, 64 * 1024);
    let bytes = content(4, len);
    let digest = push_blob(&liar.1, &name, &bytes).await;
    announced(&reader.1, &digest, 1).await;
    liar.0.corrupt(&digest);
    // The lie is in the middle; a client is answered before that comes.
    liar.0.gate.close_after(PART);
    let blob = within(reader.1.open_blob(&name, &digest)).await.expect("read").expect("there");
    liar.0.gate.open();
    let ranges = [(0, len), (0, 1_500_000), (999_990, 1_000_010), (1_200_000, len)];
    for (start, end) in ranges {
        let mut stream = blob.stream(start as u64..end as u64);
        let mut seen = Vec::new();
        let error = loop {
            match within(stream.next()).await.expect("an error comes first") {
                Ok(chunk) => seen.extend_from_slice(&chunk),
                Err(error) => break error,
            }
        };
        assert!(bytes[start..end].starts_with(&seen), "{start}..{end}: a wrong byte");
        assert!(seen.len() <= (end - start).saturating_sub(hidden), "{start}..{end}: its end");
        println!("{start}..{end}: {} bytes, then {error}", seen.len());
        assert!(within(stream.next()).await.is_none());
    }
}

/// A liar, an honest node, and a reader that asks the liar first, because it is of its zone.
async fn with_a_liar(bed: &Bed) -> [(Machine, Node); 3] {
    let (mut liar, honest, mut reader) = (bed.machine(1), bed.machine(2), bed.machine(3));
    liar.zone = "here".into();
    reader.zone = "here".into();
    let a = bed.start(&liar, &[]).await;
    let b = bed.start(&honest, &[&liar]).await;
    let c = bed.start(&reader, &[&liar, &honest]).await;
    [(liar, a), (honest, b), (reader, c)]
}

#[tokio::test(flavor = "multi_thread")]
async fn who_dies_after_telling_a_wrong_size_does_not_spoil_the_fetch() {
    let bed = Bed::new();
    let [(liar, a), (honest, b), (_reader, c)] = with_a_liar(&bed).await;
    let name = repository("two-sizes");
    let bytes = content(60, 60_000);
    let digest = push_blob(&a, &name, &bytes).await;
    push_blob(&b, &name, &bytes).await;
    announced(&c, &digest, 2).await;
    liar.gate.lie("content-length: 60000\r\n", "content-length: 50000\r\n");
    liar.gate.close_after(20_000);
    let reading = tokio::spawn({
        let (c, name) = (c.clone(), name.clone());
        async move { pull(&c, &name, &digest).await }
    });
    within(liar.gate.reached()).await;
    bed.network.kill(liar.addr);
    assert!(within(reading).await.expect("no panic") == bytes);
    let status = c.status().await;
    let honest = status.sources.iter().find(|source| source.node_id == honest.id());
    assert_eq!(honest.map(|source| source.strikes), Some(0));
    assert_eq!(status.traffic.fetches, 1, "one fetch, started over");
    assert_eq!(status.traffic.takeovers, 0, "not gone on with");
}

/// The liar tells the size that is asked for first, and gives its pieces as they are.
#[tokio::test(flavor = "multi_thread")]
async fn who_told_a_wrong_size_of_a_blob_in_pieces_is_struck_when_the_true_one_is_proven() {
    let bed = Bed::new();
    let [(liar, a), (_honest, b), (_reader, c)] = with_a_liar(&bed).await;
    let name = repository("two-sizes-in-pieces");
    let bytes = content(62, 600_000);
    let digest = push_blob(&a, &name, &bytes).await;
    push_blob(&b, &name, &bytes).await;
    announced(&c, &digest, 2).await;
    liar.gate.lie("content-length: 600000\r\n", "content-length: 500000\r\n");
    assert!(pull(&c, &name, &digest).await == bytes);
    let avoided = async || {
        let peers = c.peers().await;
        peers.into_iter().filter(|peer| peer.avoided).map(|peer| peer.node_id).collect::<Vec<_>>()
    };
    eventually("somebody is struck", async || !avoided().await.is_empty()).await;
    assert_eq!(avoided().await, [liar.id()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_fails_is_not_a_no() {
    let bed = Bed::new();
    let nodes = bed.swarm(2).await;
    let (holder, reader) = (&nodes[0], &nodes[1]);
    let name = repository("unknown");
    let bytes = content(61, 1_000);
    let digest = push_blob(&holder.1, &name, &bytes).await;
    announced(&reader.1, &digest, 1).await;
    holder.0.gate.lie("HTTP/1.1 200 OK", "HTTP/1.1 500 OK");
    let size = within(reader.1.stat_blob(&name, &digest)).await;
    let Err(ReadError::Unavailable(why)) = size else { panic!("{size:?}") };
    assert!(!why.contains("500"), "{why}");
    let read = within(reader.1.open_blob(&name, &digest)).await;
    let Err(ReadError::Unavailable(why)) = read else { panic!("{read:?}") };
    assert!(!why.contains("500"), "{why}");
    let manifest = image(&[(digest, 1_000)]);
    let (kind, reference) = (Some(media_type::OCI_MANIFEST), by_tag("1"));
    let put = reader.1.put_manifest(&name, &reference, &[], kind, manifest);
    let put = within(put).await.map(|put| put.digest);
    assert!(matches!(put, Err(PutManifestError::Unavailable(_))), "{put:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_lie_is_repaired_before_the_client_sees_it() {
    let bed = Bed::new();
    let [(liar, a), (honest, b), (_reader, c)] = with_a_liar(&bed).await;
    let name = repository("repair");
    let bytes = content(50, 20_000);
    let digest = push_blob(&a, &name, &bytes).await;
    push_blob(&b, &name, &bytes).await;
    announced(&c, &digest, 2).await;
    liar.corrupt(&digest);
    assert!(pull(&c, &name, &digest).await == bytes);
    let status = c.status().await;
    let strikes = |id: String| status.sources.iter().find(|s| s.node_id == id).map(|s| s.strikes);
    assert_eq!((strikes(liar.id()), strikes(honest.id())), (Some(1), Some(0)));
    assert_eq!(status.traffic.fetches, 1, "one fetch, started over");
    assert!(pull(&c, &name, &digest).await == bytes, "from its own disk");

    // The liar is avoided from now on: the other one is asked although it is farther away.
    let bytes = content(51, 2_000_000);
    let digest = push_blob(&a, &name, &bytes).await;
    push_blob(&b, &name, &bytes).await;
    announced(&c, &digest, 2).await;
    assert!(pull(&c, &name, &digest).await == bytes);
    assert_eq!(a.status().await.traffic.served_requests, 1, "asked once, for the lie");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_in_mid_fetch_leaves_nothing() {
    let bed = Bed::new();
    let name = repository("crash");
    let bytes = content(6, 3_000_000);
    let (digest, (holder, _node), machine) = bed.killed_in_mid_fetch(&name, &bytes, PART).await;
    let reader = bed.start(&machine, &[&holder]).await;
    assert_eq!(machine.fetch_files(), 0);
    assert_eq!(reader.status().await.blobs, 0);
    announced(&reader, &digest, 1).await;
    assert!(pull(&reader, &name, &digest).await == bytes, "and it can be fetched again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_does_not_stop_the_fetch() {
    let bed = Bed::new();
    let nodes = bed.swarm(2).await;
    let name = repository("useful");
    let bytes = content(8, 3_000_000);
    let digest = push_blob(&nodes[0].1, &name, &bytes).await;
    announced(&nodes[1].1, &digest, 1).await;
    nodes[0].0.gate.close_after(PART);
    let blob = within(nodes[1].1.open_blob(&name, &digest)).await.expect("read").expect("there");
    within(nodes[0].0.gate.reached()).await;
    drop(blob);
    nodes[0].0.gate.open();
    eventually("it is stored all the same", async || nodes[1].1.status().await.blobs == 1).await;
}
