module rollcall/servers/discovery

go 1.26

tool github.com/bilibili/discovery/cmd/discovery

require (
	github.com/BurntSushi/toml v0.0.0-20170626110600-a368813c5e64 // indirect
	github.com/bilibili/discovery v1.0.1 // indirect
	github.com/gin-contrib/sse v0.0.0-20170109093832-22d885f9ecc7 // indirect
	github.com/gin-gonic/gin v0.0.0-20180512030042-bf7803815b0b // indirect
	github.com/golang/glog v0.0.0-20160126235308-23def4e6c14b // indirect
	github.com/golang/protobuf v1.2.0 // indirect
	github.com/json-iterator/go v0.0.0-20180526014329-8744d7c5c7b4 // indirect
	github.com/mattn/go-isatty v0.0.4 // indirect
	github.com/modern-go/concurrent v0.0.0-20180306012644-bacd9c7ef1dd // indirect
	github.com/modern-go/reflect2 v0.0.0-20180511053014-58118c1ea916 // indirect
	github.com/ugorji/go v0.0.0-20180407103000-f3cacc17c85e // indirect
	golang.org/x/net v0.0.0-20180826012351-8a410e7b638d // indirect
	golang.org/x/sync v0.0.0-20180314180146-1d60e4601c6f // indirect
	golang.org/x/sys v0.0.0-20180830151530-49385e6e1522 // indirect
	gopkg.in/go-playground/validator.v8 v8.18.2 // indirect
	gopkg.in/yaml.v2 v2.2.1 // indirect
)
