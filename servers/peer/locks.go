package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

const lockTTL = 60 // seconds

// locks measures concurrency.Mutex, for the benchmarks, and writes one line: milliseconds of each time, by what was done.
//
// "free" takes a lock that nobody holds, in a session of its own each time, as rollcall does. "kept" does so in one session.
// "handover" lets so many wait for one lock, each in a session of its own, for a session has one place in the queue; and
// takes the time from before the release to the next one's turn.
func locks(client *clientv3.Client, what, path string, count int) error {
	var times map[string][]float64
	var err error
	switch what {
	case "free", "kept":
		if _, err = free(client, what == "kept", path, count/4+1); err == nil { // connections, and caches
			times, err = free(client, what == "kept", path, count)
		}
	case "handover":
		times, err = handover(client, path, count)
	default:
		err = fmt.Errorf("unknown %q", what)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(times)
}

func free(client *clientv3.Client, kept bool, path string, count int) (map[string][]float64, error) {
	ctx := context.Background()
	times := map[string][]float64{}
	var session *concurrency.Session
	for i := 0; i < count; i++ {
		start := time.Now()
		if session == nil {
			made, err := concurrency.NewSession(client, concurrency.WithTTL(lockTTL))
			if err != nil {
				return nil, err
			}
			session = made
		}
		mutex := concurrency.NewMutex(session, path)
		if err := mutex.Lock(ctx); err != nil {
			return nil, err
		}
		times["acquire"] = append(times["acquire"], since(start))
		start = time.Now()
		if err := mutex.Unlock(ctx); err != nil {
			return nil, err
		}
		if !kept {
			if err := session.Close(); err != nil {
				return nil, err
			}
			session = nil
		}
		times["release"] = append(times["release"], since(start))
	}
	return times, nil
}

func handover(client *clientv3.Client, path string, count int) (map[string][]float64, error) {
	ctx := context.Background()
	mutexes := make([]*concurrency.Mutex, count+1)
	for i := range mutexes {
		session, err := concurrency.NewSession(client, concurrency.WithTTL(lockTTL))
		if err != nil {
			return nil, err
		}
		mutexes[i] = concurrency.NewMutex(session, path)
	}
	if err := mutexes[0].Lock(ctx); err != nil {
		return nil, err
	}
	var released time.Time // by who holds it, so one at a time
	failures := make(chan error, 2*count)
	handovers := []float64{}
	var all sync.WaitGroup
	for _, mutex := range mutexes[1:] {
		all.Add(1)
		go func() {
			defer all.Done()
			if err := mutex.Lock(ctx); err != nil {
				failures <- err
				return
			}
			handovers = append(handovers, since(released))
			released = time.Now()
			if err := mutex.Unlock(ctx); err != nil {
				failures <- err
			}
		}()
	}
	for { // until all stand in the queue
		found, err := client.Get(ctx, path+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			return nil, err
		}
		if found.Count == int64(count)+1 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(time.Second) // and have a watch
	released = time.Now()
	if err := mutexes[0].Unlock(ctx); err != nil {
		return nil, err
	}
	all.Wait()
	select {
	case err := <-failures:
		return nil, err
	default:
		return map[string][]float64{"handover": handovers}, nil
	}
}

func since(start time.Time) float64 { return float64(time.Since(start).Nanoseconds()) / 1e6 }
