//! Watches, readings side by side, and answers that are too long.

use super::*;

#[tokio::test]
async fn watches_are_set_by_good_answers_fire_in_order_and_end_with_the_connection() {
    let server = Server::start().await;
    let (client, mut peer) = connect(&server, Duration::from_secs(9)).await;
    let script = async {
        let (number, _) = peer.request().await.unwrap(); // exists: there is none, and the watch is set
        peer.reply(number, -101, |_| ()).await;
        let (number, _) = peer.request().await.unwrap(); // data: there is none, and no watch is set
        peer.reply(number, -101, |_| ()).await;
        let (number, op) = peer.request().await.unwrap();
        assert_eq!(op, wire::op::SET_WATCHES2);
        // What happens right after the answer is not lost, nor what comes in the same packet.
        peer.reply(number, 0, |_| ()).await;
        peer.event(1, "/a").await;
        peer.event(1, "/a/b").await;
        peer
    };
    let asks = async {
        let (stat, made) = client.watch_stat("/a").await.unwrap();
        assert_eq!(stat, None);
        assert!(matches!(client.watch_data("/a").await, Err(ZkError::NoNode)));
        let all = client.watch_all("/a").await.unwrap();
        made.fired().await.unwrap();
        let mut heard = HashSet::new();
        while heard.len() < 2 {
            heard.extend(all.changed().await.unwrap());
        }
        assert_eq!(heard, HashSet::from(["/a".to_owned(), "/a/b".to_owned()]));
        all
    };
    let (peer, all) = tokio::join!(script, asks);
    drop(peer);
    assert_eq!(all.changed().await, Err(Broken));
}

#[tokio::test]
async fn a_watch_that_is_let_go_is_removed() {
    let server = Server::start().await;
    let (client, mut peer) = connect(&server, Duration::from_secs(9)).await;
    let script = async {
        for wanted in [wire::op::SET_WATCHES2, wire::op::SET_WATCHES2, wire::op::REMOVE_WATCHES] {
            let (number, op) = peer.request().await.unwrap();
            assert_eq!(op, wanted);
            peer.reply(number, 0, |_| ()).await;
        }
    };
    let asks = async {
        let one = client.watch_all("/a").await.unwrap();
        let two = client.watch_all("/a").await.unwrap();
        drop(one);
        drop(two);
    };
    tokio::join!(script, asks);
}

#[tokio::test]
async fn readings_that_are_asked_side_by_side_are_one_request_and_each_gets_its_own() {
    let server = Server::start().await;
    let (client, mut peer) = connect(&server, Duration::from_secs(9)).await;
    let script = async {
        let (number, op) = peer.request().await.unwrap();
        assert_eq!(op, wire::op::MULTI_READ);
        peer.reply(number, 0, |out| {
            put_part(out, wire::op::GET_DATA);
            out.bytes(b"first");
            put_stat(out);
            put_part(out, wire::op::ERROR);
            out.int(-101);
            put_part(out, wire::op::GET_CHILDREN);
            out.int(1);
            out.text("child");
            put_end(out);
        })
        .await;
        // The second can't be read, and with it nothing behind it.
        let (number, _) = peer.request().await.unwrap();
        peer.reply(number, 0, |out| {
            put_part(out, wire::op::GET_CHILDREN);
            out.int(0);
            put_part(out, wire::op::GET_DATA);
            out.int(1 << 30);
        })
        .await;
    };
    let asks = async {
        let (one, two) = tokio::join!(
            client.read_all(&[Asked::Data("/a")]),
            client.read_all(&[Asked::Data("/b"), Asked::Children("/c")]),
        );
        assert!(matches!(&one.unwrap()[..], [Part::Data(data, _)] if data == "first"));
        let wanted = vec![Part::Failed(ZkError::NoNode), Part::Children(vec!["child".to_owned()])];
        assert_eq!(two, Ok(wanted));
        let (one, two, three) = tokio::join!(
            client.read_all(&[Asked::Children("/a")]),
            client.read_all(&[Asked::Data("/b")]),
            client.read_all(&[Asked::Data("/c")]),
        );
        assert_eq!(one, Ok(vec![Part::Children(Vec::new())]));
        assert_eq!((two, three), (Err(ZkError::Malformed), Err(ZkError::Malformed)));
    };
    tokio::join!(script, asks);
}

#[tokio::test]
async fn a_watch_that_is_let_go_while_another_of_its_node_is_asked_for_takes_nothing_from_it() {
    let server = Server::start().await;
    let (client, mut peer) = connect(&server, Duration::from_secs(9)).await;
    let (one, number) = tokio::join!(client.watch_all("/a"), async {
        let (number, _) = peer.request().await.unwrap();
        peer.reply(number, 0, |_| ()).await;
        number
    });
    let one = one.unwrap();
    let script = async {
        let (second, op) = peer.request().await.unwrap();
        assert_eq!((second, op), (number + 1, wire::op::SET_WATCHES2));
        drop(one);
        let (third, op) = peer.request().await.unwrap();
        assert_eq!(op, wire::op::EXISTS, "nothing is removed");
        peer.reply(second, 0, |_| ()).await;
        peer.reply(third, -101, |_| ()).await;
        peer.event(1, "/a/b").await;
    };
    let ((), two, _) = tokio::join!(script, client.watch_all("/a"), async {
        sleep(Duration::from_millis(50)).await;
        client.stat("/a").await
    });
    assert_eq!(two.unwrap().changed().await, Ok(HashSet::from(["/a/b".to_owned()])));
}

#[tokio::test]
async fn watches_that_are_asked_side_by_side_are_one_request_that_goes_before_the_readings() {
    let server = Server::start().await;
    let (client, mut peer) = connect(&server, Duration::from_secs(9)).await;
    let script = async {
        peer.catch_up().await;
        for (number_of_watches, code) in [(32, 0), (8, -6)] {
            let mut frame = peer.frame().await.unwrap();
            let (number, op) = (frame.int().unwrap(), frame.int().unwrap());
            assert_eq!(op, wire::op::SET_WATCHES2);
            let _zxid = frame.long().unwrap();
            for _ in 0..4 {
                assert_eq!(frame.int().unwrap(), 0);
            }
            assert_eq!(frame.texts().unwrap().len(), number_of_watches);
            peer.reply(number, code, |_| ()).await;
        }
        let (number, op) = peer.request().await.unwrap();
        assert_eq!(op, wire::op::MULTI_READ);
        peer.reply(number, 0, |out| {
            put_part(out, wire::op::GET_CHILDREN);
            out.int(0);
            put_end(out);
        })
        .await;
    };
    let paths: Vec<String> = (0..40).map(|at| format!("/{at:02}/{}", "a".repeat(996))).collect();
    let watches = futures::future::join_all(paths.iter().map(|path| client.watch_all(path)));
    let asked = [Asked::Children("/a")];
    let ((), watches, read) = tokio::join!(script, watches, client.read_all(&asked));
    assert_eq!(read, Ok(vec![Part::Children(Vec::new())]));
    let refused = watches
        .iter()
        .filter(|watch| matches!(watch, Err(ZkError::Unimplemented)))
        .count();
    assert_eq!((watches.iter().filter(|watch| watch.is_ok()).count(), refused), (32, 8));
}

#[tokio::test]
async fn an_answer_that_is_longer_than_any_is_passed_over_and_costs_the_others_nothing() {
    async fn too_long(peer: &mut Peer, number: i32) {
        let length = wire::LONGEST_FRAME + 1;
        let mut out = BytesMut::new();
        out.int(i32::try_from(length).unwrap());
        out.int(number);
        out.long(77);
        out.int(0);
        peer.io.write_all(&out).await.unwrap();
        let some = vec![b'x'; 1 << 20];
        let mut left = length - 16;
        while left > 0 {
            let part = left.min(some.len());
            peer.io.write_all(&some[..part]).await.unwrap();
            left -= part;
        }
    }
    let server = Server::start().await;
    let (client, mut peer) = connect(&server, Duration::from_secs(30)).await;
    let script = async {
        let (both, _) = peer.request().await.unwrap();
        too_long(&mut peer, both).await;
        // Each is asked for alone.
        let (large, _) = peer.request().await.unwrap();
        too_long(&mut peer, large).await;
        let (small, _) = peer.request().await.unwrap();
        peer.reply(small, 0, |out| {
            put_part(out, wire::op::GET_CHILDREN);
            out.int(0);
            put_end(out);
        })
        .await;
    };
    let (large, small) = ([Asked::Data("/large")], [Asked::Children("/small")]);
    let ((), large, small) = tokio::join!(script, client.read_all(&large), client.read_all(&small));
    assert_eq!(
        (large, small),
        (Err(ZkError::AnswerTooLarge), Ok(vec![Part::Children(Vec::new())]))
    );
    assert_eq!(*client.state().borrow(), State::Up);
}
