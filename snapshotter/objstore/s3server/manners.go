package s3server

import (
	"errors"
	"io"
	"log/slog"

	"github.com/gofiber/fiber/v3"
	"github.com/versity/versitygw/s3err"
)

// manners makes the gateway polite. Left alone it
//
//   - answers a refused upload early and closes the connection while the client
//     still sends, so that the client sees a reset instead of the answer: the
//     rest of the body is read here, however long;
//   - prints errors that have no S3 code to stderr: they go to log instead.
func manners(log *slog.Logger) fiber.Handler {
	return func(ctx fiber.Ctx) error {
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
