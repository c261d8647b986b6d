package s3server

import "github.com/versity/versitygw/auth"

// accounts is the gateway's service for a single account. It is made here
// because the gateway announces the one that it makes itself on stdout, and
// because the original answers an unknown access key with 404 instead of
// InvalidAccessKeyId.
type accounts struct {
	auth.IAMService
	root auth.Account
}

func newAccounts(cfg Config) accounts {
	root := auth.Account{Access: cfg.AccessKey, Secret: cfg.SecretKey, Role: auth.RoleAdmin}
	return accounts{IAMService: auth.NewIAMServiceSingle(root), root: root}
}

// GetUserAccount knows the one account.
func (a accounts) GetUserAccount(access string) (auth.Account, error) {
	if access == a.root.Access {
		return a.root, nil
	}
	return auth.Account{}, auth.ErrNoSuchUser
}
