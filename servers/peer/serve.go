package main

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/go-kratos/kratos/v2"
	transport "github.com/go-kratos/kratos/v2/transport/grpc"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// serve is a Kratos application with a gRPC server of orders.v1.Orders (__test__/grpc/fixtures/orders.proto) on a free
// port of 127.0.0.1. It writes {"event":"registered"} when it is registered, and answers each call after 5 to 35 ms with
// its id. It ends as Kratos ends on SIGTERM: deregister, then GracefulStop, with nothing in between.
func serve(id string, p *peer) error {
	server := transport.NewServer(transport.Address("127.0.0.1:0"))
	server.RegisterService(&orders, id)
	app := kratos.New(
		kratos.ID(id),
		kratos.Name("orders"),
		kratos.Server(server),
		kratos.Registrar(p.registry),
		kratos.AfterStart(func(context.Context) error {
			p.write(map[string]string{"event": "registered"})
			return nil
		}),
	)
	return app.Run()
}

// The description that protoc-gen-go-grpc would write: messages are well-known types, so there is nothing to generate.
var orders = grpc.ServiceDesc{
	ServiceName: "orders.v1.Orders",
	HandlerType: (*any)(nil),
	Methods:     []grpc.MethodDesc{{MethodName: "Get", Handler: get}},
	Metadata:    "orders.proto",
}

func get(id any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
	order := new(wrapperspb.StringValue)
	if err := decode(order); err != nil {
		return nil, err
	}
	answer := func(context.Context, any) (any, error) {
		time.Sleep(5*time.Millisecond + rand.N(30*time.Millisecond))
		return wrapperspb.String(id.(string)), nil
	}
	if intercept == nil {
		return answer(ctx, order)
	}
	return intercept(ctx, order, &grpc.UnaryServerInfo{Server: id, FullMethod: "/orders.v1.Orders/Get"}, answer)
}
