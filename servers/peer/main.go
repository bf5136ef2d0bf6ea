// Command peer is a small Go service on Kratos v2 and its etcd, Consul or Nacos registry. The tests of rollcall run it
// next to the package, on the same server, to see that each side reads what the other side wrote.
//
// It reads one JSON command per line from standard input and writes one JSON answer per line to
// standard output. Every command carries an "id" of the caller's choice, which its answer repeats:
//
//	{"id":1,"op":"register","instance":{"id":"a","name":"hello","version":"v1","metadata":null,"endpoints":null}}
//	{"id":2,"op":"deregister","instance":{"id":"a","name":"hello"}}
//	{"id":3,"op":"get","name":"hello"}
//	{"id":4,"op":"watch","name":"hello"}
//	{"id":5,"op":"unwatch","watch":4}
//	{"id":6,"op":"stop"}
//
// An answer is {"id":3,"ok":true,…} or {"id":3,"ok":false,"error":"…"}; "get" adds "instances".
// A watch writes {"event":"list","watch":4,"name":"hello","instances":[…]} for every list that Kratos
// delivers, and {"event":"error","watch":4,"name":"hello","error":"…"} when it fails to.
//
// With --locks it measures the locks of etcd's own client, for the benchmarks, and ends: see locks.go.
//
// With --serve it is an application of Kratos with a gRPC server instead, and reads no commands: see serve.go.
//
// "stop" deregisters what is registered, like a Kratos application does. The end of standard input
// ends the process at once and deregisters nothing, like a crash.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	consul "github.com/go-kratos/kratos/contrib/registry/consul/v2"
	etcd "github.com/go-kratos/kratos/contrib/registry/etcd/v2"
	nacos "github.com/go-kratos/kratos/contrib/registry/nacos/v2"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/hashicorp/consul/api"
	"github.com/nacos-group/nacos-sdk-go/clients"
	"github.com/nacos-group/nacos-sdk-go/common/constant"
	"github.com/nacos-group/nacos-sdk-go/vo"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// callTimeout bounds one register, deregister or get.
const callTimeout = 10 * time.Second

// retryDelay is how long Kratos's own resolver waits after a watch failed (resolver.go, `watch`).
const retryDelay = time.Second

type command struct {
	ID       int64                     `json:"id"`
	Op       string                    `json:"op"`
	Name     string                    `json:"name"`
	Watch    int64                     `json:"watch"`
	Instance *registry.ServiceInstance `json:"instance"`
}

type answer struct {
	ID        int64  `json:"id"`
	OK        bool   `json:"ok"`
	Error     string `json:"error,omitempty"`
	Instances any    `json:"instances,omitempty"`
}

type event struct {
	Event     string                      `json:"event"`
	Watch     int64                       `json:"watch"`
	Name      string                      `json:"name"`
	Instances []*registry.ServiceInstance `json:"instances"`
	Error     string                      `json:"error,omitempty"`
}

type key struct{ name, id string }

// backend is what Kratos's registries have in common.
type backend interface {
	registry.Registrar
	registry.Discovery
}

type peer struct {
	registry backend

	output sync.Mutex

	// The Kratos registry touches its own state without a lock: one registration at a time.
	registering sync.Mutex
	// Kratos finds a registration again by the address of its instance.
	registered map[key]*registry.ServiceInstance

	watching sync.Mutex
	watches  map[int64]context.CancelFunc
}

func main() {
	endpoints := flag.String("endpoints", "127.0.0.1:2379", "etcd members, separated by commas")
	namespace := flag.String("namespace", "/microservices", "what every key begins with")
	ttl := flag.Duration("ttl", 15*time.Second, "time to live of a registration")
	username := flag.String("username", "", "etcd user")
	password := flag.String("password", "", "password of the etcd user")
	agent := flag.String("consul", "", "an agent of Consul, instead of etcd")
	interval := flag.Duration("interval", 10*time.Second, "between two renewals in Consul, half the time to live")
	health := flag.Bool("health", true, "whether the agent of Consul itself checks the endpoints")
	nacosServer := flag.String("nacos", "", "host:port of a Nacos, instead of etcd; --namespace is the id of one")
	serving := flag.String("serve", "", "serve orders over gRPC under this id, as an application of Kratos does")
	locking := flag.String("locks", "", "measure locks of etcd instead: free, kept or handover; see locks.go")
	count := flag.Int("count", 100, "how often")
	flag.Parse()

	var chosen backend
	if *nacosServer != "" {
		opened, err := openNacos(*nacosServer, *namespace)
		if err != nil {
			fmt.Fprintf(os.Stderr, "peer: cannot use %s: %v\n", *nacosServer, err)
			os.Exit(1)
		}
		chosen = opened
	} else if *agent != "" {
		client, err := api.NewClient(&api.Config{Address: *agent})
		if err != nil {
			fmt.Fprintf(os.Stderr, "peer: cannot use %s: %v\n", *agent, err)
			os.Exit(1)
		}
		chosen = consul.New(client,
			consul.WithHealthCheck(*health),
			consul.WithHealthCheckInterval(int(interval.Seconds())))
	} else {
		client, err := clientv3.New(clientv3.Config{
			Endpoints:   strings.Split(*endpoints, ","),
			DialTimeout: callTimeout,
			Username:    *username,
			Password:    *password,
		})
		if err != nil {
			fmt.Fprintf(os.Stderr, "peer: cannot connect to %s: %v\n", *endpoints, err)
			os.Exit(1)
		}
		if *locking != "" {
			if err := locks(client, *locking, *namespace, *count); err != nil {
				fmt.Fprintf(os.Stderr, "peer: %v\n", err)
				os.Exit(1)
			}
			return
		}
		chosen = etcd.New(client, etcd.Namespace(*namespace), etcd.RegisterTTL(*ttl))
	}

	p := &peer{
		registry:   chosen,
		registered: make(map[key]*registry.ServiceInstance),
		watches:    make(map[int64]context.CancelFunc),
	}
	if *serving != "" {
		if err := serve(*serving, p); err != nil {
			fmt.Fprintf(os.Stderr, "peer: %v\n", err)
			os.Exit(1)
		}
		return
	}
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 16<<20)
	for input.Scan() {
		var c command
		if err := json.Unmarshal(input.Bytes(), &c); err != nil {
			p.write(answer{ID: c.ID, Error: fmt.Sprintf("not a command: %v", err)})
			continue
		}
		if c.Op == "stop" {
			p.reply(c, nil, p.stop())
			os.Exit(0)
		}
		go p.run(c)
	}
	if err := input.Err(); err != nil {
		fmt.Fprintf(os.Stderr, "peer: cannot read commands: %v\n", err)
	}
	os.Exit(1)
}

// openNacos gives Kratos's registry on the HTTP API of Nacos. Its client writes logs and lists into a folder of its own.
func openNacos(server, namespace string) (backend, error) {
	host, text, err := net.SplitHostPort(server)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "peer-nacos-")
	if err != nil {
		return nil, err
	}
	config := constant.NewClientConfig(
		constant.WithNamespaceId(namespace),
		constant.WithTimeoutMs(uint64(callTimeout.Milliseconds())),
		constant.WithNotLoadCacheAtStart(true),
		constant.WithLogDir(folder),
		constant.WithCacheDir(folder),
		constant.WithLogLevel("error"),
	)
	client, err := clients.NewNamingClient(vo.NacosClientParam{
		ClientConfig:  config,
		ServerConfigs: []constant.ServerConfig{*constant.NewServerConfig(host, port)},
	})
	if err != nil {
		return nil, err
	}
	return nacos.New(client), nil
}

func (p *peer) run(c command) {
	switch c.Op {
	case "register":
		p.reply(c, nil, p.register(c.Instance))
	case "deregister":
		p.reply(c, nil, p.deregister(c.Instance))
	case "get":
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		instances, err := p.registry.GetService(ctx, c.Name)
		p.reply(c, instances, err)
	case "watch":
		p.watch(c)
	case "unwatch":
		p.reply(c, nil, p.unwatch(c.Watch))
	default:
		p.reply(c, nil, fmt.Errorf("unknown operation %q", c.Op))
	}
}

func (p *peer) register(instance *registry.ServiceInstance) error {
	if instance == nil {
		return errors.New(`"instance" is missing`)
	}
	p.registering.Lock()
	defer p.registering.Unlock()
	k := key{instance.Name, instance.ID}
	if old := p.registered[k]; old != nil {
		// The same registration once more, as an application does that changed its metadata.
		*old = *instance
		instance = old
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if err := p.registry.Register(ctx, instance); err != nil {
		return err
	}
	p.registered[k] = instance
	return nil
}

func (p *peer) deregister(instance *registry.ServiceInstance) error {
	if instance == nil {
		return errors.New(`"instance" is missing`)
	}
	p.registering.Lock()
	defer p.registering.Unlock()
	k := key{instance.Name, instance.ID}
	if old := p.registered[k]; old != nil {
		instance = old
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if err := p.registry.Deregister(ctx, instance); err != nil {
		return err
	}
	delete(p.registered, k)
	return nil
}

func (p *peer) watch(c command) {
	ctx, cancel := context.WithCancel(context.Background())
	watcher, err := p.registry.Watch(ctx, c.Name)
	if err != nil {
		cancel()
		p.reply(c, nil, err)
		return
	}
	p.watching.Lock()
	p.watches[c.ID] = cancel
	p.watching.Unlock()
	p.reply(c, nil, nil)

	defer watcher.Stop()
	for {
		instances, err := watcher.Next()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			p.write(event{Event: "error", Watch: c.ID, Name: c.Name, Error: err.Error()})
			time.Sleep(retryDelay)
			continue
		}
		p.write(event{Event: "list", Watch: c.ID, Name: c.Name, Instances: instances})
	}
}

func (p *peer) unwatch(id int64) error {
	p.watching.Lock()
	defer p.watching.Unlock()
	cancel := p.watches[id]
	if cancel == nil {
		return fmt.Errorf("no watch %d", id)
	}
	cancel()
	delete(p.watches, id)
	return nil
}

func (p *peer) stop() error {
	p.registering.Lock()
	instances := make([]*registry.ServiceInstance, 0, len(p.registered))
	for _, instance := range p.registered {
		instances = append(instances, instance)
	}
	p.registering.Unlock()

	var failures []error
	for _, instance := range instances {
		failures = append(failures, p.deregister(instance))
	}
	return errors.Join(failures...)
}

func (p *peer) reply(c command, instances []*registry.ServiceInstance, err error) {
	a := answer{ID: c.ID, OK: err == nil}
	if err != nil {
		a.Error = err.Error()
	}
	if instances != nil {
		a.Instances = instances
	}
	p.write(a)
}

func (p *peer) write(line any) {
	text, err := json.Marshal(line)
	if err != nil {
		fmt.Fprintf(os.Stderr, "peer: cannot write %v: %v\n", line, err)
		return
	}
	p.output.Lock()
	defer p.output.Unlock()
	os.Stdout.Write(append(text, '\n'))
}
