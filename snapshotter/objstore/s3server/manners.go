package s3server

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"

	"github.com/gofiber/fiber/v3"
	"github.com/valyala/fasthttp"
	"github.com/versity/versitygw/s3err"
)

// manners makes the gateway polite. Left alone it
//
//   - answers a refused upload early and closes the connection while the client
//     still sends, so that the client sees a reset instead of the answer: the
//     rest of the body is read here, however long;
//   - prints errors that have no S3 code to stderr, and clients that break off
//     while they send: both go to log instead.
func manners(log *slog.Logger) fiber.Handler {
	var first sync.Once
	return func(ctx fiber.Ctx) error {
		// The first request is Start's own; nobody else is connected yet.
		first.Do(func() { muteBrokenOff(ctx.App().Server(), log) })
		err := ctx.Next()
		if body := ctx.Request().BodyStream(); body != nil && ctx.Request().Header.ContentLength() > 0 {
			_, _ = io.Copy(io.Discard, body) // a client that has gone needs no answer
		}
		if err == nil {
			return nil
		}
		var known s3err.S3Error
		var fromFiber *fiber.Error
		if errors.As(err, &known) || errors.As(err, &fromFiber) {
			return err
		}
		log.Error("s3server: internal error", "method", ctx.Method(), "path", ctx.Path(), "err", err)
		refused := s3err.GetAPIError(s3err.ErrInternalError)
		return ctx.Status(refused.StatusCode()).Send(refused.XMLBody("", ""))
	}
}

// muteBrokenOff keeps requests that end in the middle from the gateway's handler.
func muteBrokenOff(srv *fasthttp.Server, log *slog.Logger) {
	handle := srv.ErrorHandler
	srv.ErrorHandler = func(ctx *fasthttp.RequestCtx, err error) {
		var network net.Error
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.As(err, &network) {
			log.Debug("s3server: client broke off", "err", err)
			ctx.SetStatusCode(fasthttp.StatusBadRequest)
			return
		}
		handle(ctx, err)
	}
}
