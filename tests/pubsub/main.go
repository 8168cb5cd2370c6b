// Command pubsub serves pstest, Google's own fake of Cloud Pub/Sub, on one address.
//
// It reads commands from standard input, one a line: "away" closes the port and all connections, "back" opens
// it again with topics, subscriptions and messages as they were. It ends at the end of its input.
package main

import (
	"bufio"
	"fmt"
	"log"
	"net"
	"os"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/grpc"
)

// A little over Google's limit for a request to publish; gRPC's own is 4 MiB.
const maxRequestBytes = 11_000_000

func main() {
	fake := pstest.NewServer()
	serving := serve(os.Args[1], fake)
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); fmt.Println(lines.Text()) {
		switch lines.Text() {
		case "away":
			serving.Stop()
		case "back":
			serving = serve(os.Args[1], fake)
		}
	}
}

func serve(address string, fake *pstest.Server) *grpc.Server {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxRequestBytes))
	pb.RegisterPublisherServer(server, &fake.GServer)
	pb.RegisterSubscriberServer(server, &fake.GServer)
	go server.Serve(listener)
	return server
}
